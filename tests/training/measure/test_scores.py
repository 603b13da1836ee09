from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.simulated import calibrated, softmax
from training.measure.scores import (
    BINS,
    confusion,
    is_right,
    mean_f1,
    reliability,
    risk_coverage,
    row_nll,
    score,
)

NAMES = ("accuracy", "macro_f1", "nll", "brier", "ece", "aurc")
FOUR = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
TRUE = np.array([0, 1, 1, 2])  # the second is wrong


def test_four_rows_by_hand() -> None:
    found = score(FOUR, TRUE, np.arange(4))
    assert (found.rows, found.groups) == (4, 4)
    assert found.accuracy.value == 0.75
    assert found.macro_f1.value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found.nll.value == pytest.approx(-np.log([0.7, 0.4, 0.5, 0.8]).mean())
    assert found.brier.value == pytest.approx((0.14 + 0.62 + 0.38 + 0.06) / 4)
    assert found.ece.value == pytest.approx((0.3 + 0.0 + 0.2) / 4)  # 0.7 and 0.5 + 0.5 and 0.8
    assert found.aurc.value == pytest.approx(
        (0 + 0 + 1 / 4 + 1 / 4) / 4
    )  # two are as sure: 0.8, 0.7, then both


def test_counts_of_the_confusion_matrix() -> None:
    np.testing.assert_array_equal(confusion(FOUR, TRUE), [[1, 0, 0], [1, 1, 0], [0, 0, 1]])


def test_intervals_are_those_of_scores_drawn_one_by_one() -> None:
    """Weighted sums are the figures of the rows that were really drawn."""
    logits, targets = calibrated(60, labels=4)
    probabilities, groups, draws = softmax(logits).round(2), np.arange(60) // 3, 40
    rng = np.random.default_rng(0)  # as in Grouped.draws, whose first chunk this is
    wanted = []
    for drawn in rng.integers(20, size=(draws, 20)):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        again = score(probabilities[rows], targets[rows], np.arange(60), draws=1)
        wanted.append([getattr(again, name).value for name in NAMES])
    found = score(probabilities, targets, groups, draws=draws)
    for name, values in zip(NAMES, np.transpose(wanted), strict=True):
        low, high = getattr(found, name).interval
        if name == "ece":
            values = np.maximum(values - values.mean() + found.ece.value, 0)
        assert np.quantile(values, [0.025, 0.975]) == pytest.approx((low, high), abs=1e-6), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_rows_and_of_classes_never_matters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = calibrated(50, labels=5, seed=seed)
    probabilities, groups = softmax(logits).round(1), rng.integers(12, size=50)  # with ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    top_two = np.sort(probabilities, axis=1)[:, -2:]
    chosen = (
        top_two[:, 0] < top_two[:, 1]
    )  # of tied classes the first is said: that does depend on their order
    probabilities, targets, groups = probabilities[chosen], targets[chosen], groups[chosen]
    rows, classes = rng.permutation(len(targets)), rng.permutation(5)
    one = score(probabilities, targets, groups, draws=20)
    other = score(probabilities[rows][:, classes], classes.argsort()[targets[rows]], groups[rows], draws=20)
    for name in NAMES:
        assert getattr(one, name).value == pytest.approx(getattr(other, name).value, abs=1e-9)
        assert getattr(one, name).interval == pytest.approx(getattr(other, name).interval, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.floats(0.5, 20))
def test_the_area_lies_between_the_best_and_the_worst_order(seed: int, rows: int, sharpness: float) -> None:
    logits, targets = calibrated(rows, labels=3, sharpness=sharpness, seed=seed)
    probabilities = softmax(logits)
    wrong = ~is_right(probabilities, targets)
    area = score(probabilities, targets, np.arange(rows), draws=2).aurc.value
    place = np.arange(1, rows + 1)
    best, worst = ((np.sort(wrong)[::way].cumsum() / place).mean() for way in (1, -1))
    assert best - 1e-12 <= area <= worst + 1e-12


def test_the_curve_ends_at_the_error_of_all_rows() -> None:
    logits, targets = calibrated(1_000)
    probabilities = softmax(logits)
    wrong = ~is_right(probabilities, targets)
    curve = risk_coverage(probabilities.max(axis=1), wrong)
    assert len(curve.risk) == 101
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(wrong.mean())
    area = score(probabilities, targets, np.arange(1_000), draws=2).aurc.value
    assert np.mean(curve.risk) == pytest.approx(area, abs=0.01)


def test_a_calibrated_model_has_next_to_no_calibration_error() -> None:
    logits, targets = calibrated(20_000)
    honest = score(softmax(logits), targets, np.arange(20_000), draws=50)
    boastful = score(softmax(2.5 * logits), targets, np.arange(20_000), draws=50)
    assert honest.ece.value < 0.015
    assert boastful.ece.value > 0.1
    assert honest.nll.value < boastful.nll.value
    assert honest.accuracy == boastful.accuracy


def test_reliability_is_what_the_error_adds_up() -> None:
    logits, targets = calibrated(500)
    probabilities = softmax(2 * logits)
    found = reliability(probabilities.max(axis=1), is_right(probabilities, targets))
    assert len(found.rows) == BINS
    assert sum(found.rows) == 500
    gaps = np.abs(np.subtract(found.accuracy, found.confidence)) * found.rows
    assert gaps.sum() / 500 == pytest.approx(score(probabilities, targets, np.arange(500), draws=2).ece.value)


def test_a_certain_error_costs_what_is_stated_not_everything() -> None:
    certain = np.array([[1.0, 0.0]])
    assert row_nll(certain, np.array([1])) == pytest.approx(27.63, abs=0.01)


def test_classes_that_do_not_occur_leave_the_mean_alone() -> None:
    assert mean_f1(
        np.array([[2.0, 0, 0]]), np.array([[2.0, 0, 1]]), np.array([[3.0, 0, 0]])
    ) == pytest.approx(0.4)
