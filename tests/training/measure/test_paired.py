from __future__ import annotations

import numpy as np
import pytest

from tests.training.simulated import Floats, calibrated, softmax
from training.measure.paired import compare


def blurred(logits: Floats, noise: float) -> Floats:
    return softmax(logits + noise * np.random.default_rng(1).normal(size=logits.shape))


def test_the_better_model_wins_by_what_it_is_better() -> None:
    logits, targets = calibrated(1_500)
    better, worse = blurred(logits, 0.0), blurred(logits, 1.5)
    found = compare(better, worse, targets, np.arange(1_500))
    assert found.challenger_wins
    assert found.nll.worse_share == found.accuracy.worse_share == 0
    assert found.nll.measured.value < 0 < found.accuracy.measured.value
    back = compare(worse, better, targets, np.arange(1_500))
    assert not back.challenger_wins
    assert back.nll.measured.value == pytest.approx(-found.nll.measured.value)
    assert back.nll.worse_share == 1


def test_equal_models_do_not_win() -> None:
    logits, targets = calibrated(300)
    found = compare(softmax(logits), softmax(logits), targets, np.arange(300))
    assert not found.challenger_wins
    assert found.nll.measured.interval == (0, 0)
    assert found.nll.worse_share == 1


def test_chance_wins_about_one_time_in_forty() -> None:
    wins = 0
    for seed in range(200):
        logits, targets = calibrated(300, labels=3, seed=seed)
        noise = np.random.default_rng(seed + 1_000)
        one, other = (softmax(logits + noise.normal(size=logits.shape)) for _ in range(2))
        wins += compare(one, other, targets, np.arange(300), draws=200).challenger_wins
    assert wins <= 14  # 5 expected; more than 14 with a chance of 1 in 4,000


def test_few_groups_cannot_tell_what_many_rows_seem_to() -> None:
    logits, targets = calibrated(12)
    better, worse = blurred(logits, 0.0), blurred(logits, 0.8)
    rows = np.arange(12).repeat(100)
    alone = compare(better[rows], worse[rows], targets[rows], np.arange(1_200))
    together = compare(better[rows], worse[rows], targets[rows], rows)
    assert alone.nll.measured.value == together.nll.measured.value
    assert np.diff(together.nll.measured.interval or ()) > 5 * np.diff(alone.nll.measured.interval or ())


def test_one_group_never_decides() -> None:
    logits, targets = calibrated(50)
    assert not compare(
        blurred(logits, 0), blurred(logits, 9), targets, np.zeros(50, np.int64)
    ).challenger_wins
