from __future__ import annotations

import numpy as np
import pytest

from training.measure.multilabel import label_reliability, row_nll_of_labels, score_labels

SAID = np.array([[0.9, 0.2], [0.6, 0.7], [0.3, 0.4], [0.8, 0.1]])
TRUE = np.array([[1, 0], [0, 1], [1, 1], [1, 0]], np.float64)


def test_four_rows_by_hand() -> None:
    found = score_labels(SAID, TRUE, np.arange(4))
    assert found.micro_f1.value == pytest.approx(2 * 3 / (5 + 4))
    assert found.macro_f1.value == pytest.approx((2 * 2 / (3 + 3) + 2 * 1 / (2 + 1)) / 2)
    first, second = (1 + 1 + 3 / 4) / 3, 1.0  # ranked 0.9, 0.8, 0.6, 0.3; and 0.7, 0.4
    assert found.mean_average_precision.value == pytest.approx((first + second) / 2)
    likelihood = np.array([0.9, 0.8, 0.4, 0.7, 0.3, 0.4, 0.8, 0.9])
    assert found.nll.value == pytest.approx(-np.log(likelihood).mean())
    assert found.brier.value == pytest.approx(((1 - likelihood) ** 2).mean())
    assert row_nll_of_labels(SAID, TRUE)[0] == pytest.approx(-np.log([0.9, 0.8]).mean())


def test_rows_that_are_as_probable_have_one_precision() -> None:
    same = np.full((4, 1), 0.3)
    found = score_labels(same, np.array([[1.0], [0], [0], [0]]), np.arange(4), draws=5)
    assert found.mean_average_precision.value == pytest.approx(0.25)


def test_intervals_are_those_of_scores_drawn_one_by_one() -> None:
    rng = np.random.default_rng(3)
    said, groups, draws = rng.random((30, 3)).round(1), np.arange(30) // 2, 30
    truth = (rng.random(said.shape) < said).astype(np.float64)
    wanted = []
    for drawn in np.random.default_rng(0).integers(15, size=(draws, 15)):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        wanted.append(score_labels(said[rows], truth[rows], np.arange(30), draws=1))
    found = score_labels(said, truth, groups, draws=draws)
    for name in ("micro_f1", "macro_f1", "mean_average_precision", "nll", "brier"):
        values = [getattr(score, name).value for score in wanted]
        assert getattr(found, name).interval == pytest.approx(
            np.quantile(values, [0.025, 0.975]), abs=1e-6
        ), name


def test_calibrated_sigmoids_have_next_to_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    said = rng.random((8_000, 4))
    truth = (rng.random(said.shape) < said).astype(np.float64)
    found = score_labels(said, truth, np.arange(8_000), draws=20)
    assert found.ece.value < 0.01
    assert score_labels(said**2, truth, np.arange(8_000), draws=20).ece.value > 0.1
    bins = label_reliability(said, truth)
    assert sum(bins.rows) == said.size
    assert bins.accuracy == pytest.approx(bins.confidence, abs=0.05)
