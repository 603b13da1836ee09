from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.simulated import Floats, Numbers, calibrated, softmax
from training.calibrate.conformal import (
    Conformal,
    KnownRows,
    Method,
    TooFewRows,
    aps_scores,
    aps_sets,
    coverage,
    fit_conformal,
    lac_scores,
    lac_sets,
    with_top,
)

METHODS: tuple[Method, ...] = ("lac", "aps")
SETS = {"lac": lac_sets, "aps": aps_sets}


def known(logits: Floats, targets: Numbers) -> KnownRows:
    return KnownRows(logits, targets, np.arange(len(targets)))


def fit(logits: Floats, targets: Numbers, *, level: float = 0.9) -> Conformal:
    return fit_conformal({"image": known(logits, targets)}, level=level)


def held(logits: Floats, targets: Numbers, conformal: Conformal, method: Method) -> float:
    sets = SETS[method](logits, conformal.thresholds(method)["image"])
    return float(sets[np.arange(len(targets)), targets].mean())


# --- the guarantee ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sharpness", [1.0, 4.0, 30.0])  # right in 32, 75 and 97 % of rows
@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.5])  # the guarantee asks for no calibrated model
def test_sets_hold_their_class_as_often_as_promised(
    method: Method, sharpness: float, temperature: float
) -> None:
    rows, draws = 500, 30
    shares = []
    for seed in range(draws):
        logits, targets = calibrated(2 * rows, sharpness=sharpness, seed=seed)
        logits = logits * temperature
        shares.append(held(logits[rows:], targets[rows:], fit(logits[:rows], targets[:rows]), method))
    error = math.sqrt(0.9 * 0.1 * (1 / rows + 1 / rows) / draws)  # of validation and of test rows
    assert np.mean(shares) == pytest.approx(0.9, abs=4 * error + 1 / rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.sampled_from(METHODS))
def test_one_validation_set_strays_no_further_than_it_may(seed: int, level: float, method: Method) -> None:
    logits, targets = calibrated(3_000, seed=seed)
    conformal = fit(logits[:1_000], targets[:1_000], level=level)
    sets = SETS[method](logits[1_000:], conformal.thresholds(method)["image"])
    measured = coverage(sets, targets[1_000:], np.arange(2_000))
    assert abs(measured.deviation(level, fitted_on=1_000)) < 5


@pytest.mark.parametrize("method", METHODS)
def test_a_higher_level_never_takes_a_class_out(method: Method) -> None:
    logits, targets = calibrated(400)
    sets = [
        SETS[method](logits, fit(logits, targets, level=level).thresholds(method)["image"])
        for level in (0.5, 0.7, 0.9, 0.95)
    ]
    for smaller, larger in itertools.pairwise(sets):
        assert (smaller <= larger).all()
        assert smaller.sum() < larger.sum()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [9, 19, 57, 300])
def test_on_the_rows_it_was_fitted_on_the_rank_is_exact(method: Method, rows: int) -> None:
    logits, targets = calibrated(rows)
    inside = held(logits, targets, fit(logits, targets), method) * rows
    assert round(inside) == math.ceil((rows + 1) * 0.9 - 1e-9)


def test_too_few_rows_are_refused_with_the_number_that_would_do() -> None:
    logits, targets = calibrated(9)
    assert fit(logits, targets).rows == {"image": 9}
    with pytest.raises(TooFewRows, match=r"8 validation rows; sets at level 0\.9 need 9 or more"):
        fit(logits[:8], targets[:8])
    with pytest.raises(TooFewRows, match="need 99 or more"):
        fit(logits, targets, level=0.99)


def test_rows_of_a_group_leave_the_mean_coverage_but_not_its_error() -> None:
    """Each row four times: what strays is as for a quarter of the rows, and the counts say so."""
    shares, deviations = [], []
    for seed in range(60):
        logits, targets = calibrated(400, seed=seed)
        logits, targets, groups = logits.repeat(4, axis=0), targets.repeat(4), np.arange(400).repeat(4)
        rows = KnownRows(logits[:800], targets[:800], groups[:800])
        conformal = fit_conformal({"image": rows})
        assert (conformal.rows["image"], conformal.groups["image"]) == (800, 200)
        sets = lac_sets(logits[800:], conformal.lac["image"])
        measured = coverage(sets, targets[800:], groups[800:])
        shares.append(measured.share)
        deviations.append(measured.deviation(0.9, fitted_on=200))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.015)
    assert np.std(shares) > 1.5 * math.sqrt(0.9 * 0.1 * (2 / 800))  # more than rows on their own would
    assert 0.7 < np.std(deviations) < 1.3  # counted over groups, as much as it may


# --- scores -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_scores_are_the_log_odds_of_the_textbook_ones(seed: int, labels: int) -> None:
    logits, _ = calibrated(20, labels=labels, seed=seed)
    p = softmax(logits)
    above = np.where(p[:, None, :] > p[:, :, None], p[:, None, :], 0).sum(axis=2)
    np.testing.assert_allclose(1 / (1 + np.exp(-lac_scores(logits))), 1 - p, atol=1e-9)
    np.testing.assert_allclose(1 / (1 + np.exp(-aps_scores(logits))), above + p / 2, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(6)), st.floats(-50, 50))
def test_the_order_of_the_classes_and_a_constant_never_matter(
    seed: int, order: list[int], shift: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-3, 4, size=(30, 6)).astype(np.float64)  # with ties
    for scores in (lac_scores, aps_scores):
        np.testing.assert_allclose(scores(logits[:, order]), scores(logits)[:, order], atol=1e-12)
        np.testing.assert_allclose(scores(logits + shift), scores(logits), atol=1e-9)


def test_what_float32_calls_certain_still_has_an_order() -> None:
    """Softmax gives exactly 1 from a margin of 17 nats on; coverage would be that of the model."""
    rng = np.random.default_rng(0)
    targets = rng.integers(10, size=4_000)
    logits = np.zeros((4_000, 10), np.float32)
    logits[np.arange(4_000), targets] = rng.uniform(18, 60, 4_000)
    wrong = rng.random(4_000) < 0.01
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    assert (softmax(logits).max(axis=1) == 1).mean() > 0.99
    conformal = fit_conformal({"image": KnownRows(logits[:1_000], targets[:1_000], np.arange(1_000))})
    lac = coverage(lac_sets(logits[1_000:], conformal.lac["image"]), targets[1_000:], np.arange(3_000))
    assert abs(lac.deviation(0.9, fitted_on=1_000)) < 3
    assert lac.empty_share > 0.05
    seen = coverage(
        with_top(lac_sets(logits[1_000:], conformal.lac["image"]), logits[1_000:]),
        targets[1_000:],
        np.arange(3_000),
    )
    assert seen.empty_share == 0
    assert seen.share == pytest.approx(0.99, abs=0.01)
    aps = coverage(aps_sets(logits[1_000:], conformal.aps["image"]), targets[1_000:], np.arange(3_000))
    assert abs(aps.deviation(0.9, fitted_on=1_000)) < 3


def test_impossible_classes_and_rows_without_an_opinion_have_finite_scores() -> None:
    logits = np.array([[0.0, -np.inf, -np.inf], [0.0, 0.0, 0.0], [500.0, -500.0, 0.0]])
    for scores in (lac_scores(logits), aps_scores(logits)):
        assert np.isfinite(scores).all()
        assert (scores[1] == scores[1, 0]).all()
        assert scores[0, 0] < scores[0, 1] == scores[0, 2]


def test_beyond_the_floor_sets_cover_more_never_less() -> None:
    """Margins of hundreds of nats, which no float32 could tell apart, count as equal."""
    logits, targets = calibrated(2_000, sharpness=400)
    assert held(logits[1_000:], targets[1_000:], fit(logits[:1_000], targets[:1_000]), "aps") > 0.95
    assert held(logits[1_000:], targets[1_000:], fit(logits[:1_000], targets[:1_000]), "lac") > 0.87


@pytest.mark.parametrize("sharpness", [2.0, 4.0, 30.0])
def test_half_of_its_own_probability_covers_nearer_to_the_level_than_a_random_fit(sharpness: float) -> None:
    """The measurement behind the choice: fitted at random and applied with none of it covers too much."""
    logits, targets = calibrated(6_000, sharpness=sharpness)
    rng = np.random.default_rng(1)
    drawn = aps_scores(logits[:2_000], own=rng.random(2_000))[np.arange(2_000), targets[:2_000]]
    loose = aps_scores(logits[2_000:], own=0.0) <= np.sort(drawn)[math.ceil(2_001 * 0.9) - 1]
    half = aps_sets(logits[2_000:], fit(logits[:2_000], targets[:2_000]).aps["image"])
    by_chance, by_half = (coverage(sets, targets[2_000:], np.arange(4_000)) for sets in (loose, half))
    assert abs(by_half.share - 0.9) < 0.02 < by_chance.share - 0.9
    assert by_half.mean_size < by_chance.mean_size


def test_a_score_drawn_at_random_covers_if_it_is_drawn_again() -> None:
    logits, targets = calibrated(8_000, sharpness=30)
    scores = aps_scores(logits, own=np.random.default_rng(1).random(8_000))
    own = scores[np.arange(8_000), targets]
    assert (own[4_000:] <= np.sort(own[:4_000])[math.ceil(4_001 * 0.9) - 1]).mean() == pytest.approx(
        0.9, abs=0.02
    )


def test_thresholds_are_also_told_as_people_know_them() -> None:
    logits, targets = calibrated(500, sharpness=4)
    conformal = fit(logits, targets)
    largest = conformal.shares("lac")["image"]
    np.testing.assert_array_equal(
        lac_sets(logits, conformal.lac["image"]), 1 - softmax(logits) <= largest + 1e-9
    )
    assert 0 < conformal.shares("aps")["image"] < 1


# --- coverage ---------------------------------------------------------------------------------


def test_coverage_counts_what_is_in_the_sets() -> None:
    sets = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]], bool)
    measured = coverage(sets, np.array([0, 1, 2, 2]), np.array([5, 5, 7, 8]))
    assert (measured.share, measured.mean_size, measured.empty_share) == (0.5, 1.5, 0.25)
    assert (measured.rows, measured.groups) == (4, 3)
    apart = np.array([0.0, -0.5, 0.5])  # sums of covered - share in groups 5, 7 and 8
    assert measured.standard_error == pytest.approx(math.sqrt(3 / 2 * (apart @ apart)) / 4)


def test_rows_that_are_groups_have_the_binomial_error() -> None:
    logits, targets = calibrated(2_000)
    sets = lac_sets(logits, fit(logits, targets).lac["image"])
    alone = coverage(sets, targets, np.arange(2_000))
    assert alone.standard_error == pytest.approx(math.sqrt(alone.share * (1 - alone.share) / 1_999))
    twice = coverage(sets.repeat(2, axis=0), targets.repeat(2), np.arange(2_000).repeat(2))
    assert twice.standard_error == pytest.approx(alone.standard_error)


def test_a_recording_in_many_rows_counts_whatever_is_beside_it() -> None:
    rng = np.random.default_rng(0)
    recording, picture = np.repeat(np.arange(20), 50), np.arange(1_000)
    covered = (np.arange(20) % 2 == 0)[recording]  # a recording's rows are all covered, or none is
    sets = np.stack([covered, ~covered], axis=1)
    targets = np.zeros(1_000, np.int64)
    beside = rng.permutation(picture)
    found = coverage(sets, targets, np.stack([beside, recording], axis=1))
    assert found.groups == 20
    assert found == coverage(sets, targets, recording)
    assert found.standard_error > 5 * coverage(sets, targets, beside).standard_error
