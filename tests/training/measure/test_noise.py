from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.simulated import Floats, Numbers
from training.measure.bootstrap import Grouped
from training.measure.noise import Unnoised, unnoised
from training.measure.scores import bin_of


def measured(said: Floats, seen: Numbers, groups: Numbers) -> Unnoised:
    return unnoised(said, seen > 0, bin_of(said), Grouped.of(groups))


def ece(said: Floats, seen: Numbers) -> float:
    return float(np.abs(np.bincount(bin_of(said), weights=seen - said)).sum() / len(said))


def test_a_perfect_model_shows_the_noise_and_little_is_left_without_it() -> None:
    rng = np.random.default_rng(0)
    plain, left, noise = [], [], []
    for _ in range(400):
        said = rng.uniform(0.1, 1, 200)
        seen = (rng.random(200) < said).astype(np.int64)
        found = measured(said, seen, np.arange(200))
        plain.append(ece(said, seen))
        left.append(found.debiased.value)
        noise.append(found.noise.value)
    assert np.mean(noise) == pytest.approx(np.mean(plain), rel=0.1)
    assert np.mean(left) < 0.7 * np.mean(plain)


def test_what_is_truly_off_is_left() -> None:
    """Of 200 rows 60 % are right where 90 % are said to be."""
    rng = np.random.default_rng(1)
    said = np.full(200, 0.9)
    left = [
        measured(said, (rng.random(200) < 0.6).astype(np.int64), np.arange(200)).debiased.value
        for _ in range(100)
    ]
    assert np.mean(left) == pytest.approx(0.3, abs=0.01)


def test_rows_of_one_group_tell_what_one_row_does() -> None:
    rng = np.random.default_rng(2)
    said = rng.uniform(0.1, 1, 150)
    seen = (rng.random(150) < said).astype(np.int64)
    once, often = np.arange(150), np.repeat(np.arange(150), 40)
    alone, repeated = measured(said, seen, once), measured(said[often], seen[often], often)
    assert repeated.noise.value == pytest.approx(alone.noise.value)
    assert repeated.debiased.value == pytest.approx(alone.debiased.value)
    as_rows = measured(said[often], seen[often], np.arange(len(often)))
    assert as_rows.noise.value < 0.2 * alone.noise.value


def test_with_one_row_a_group_the_error_is_that_of_a_share() -> None:
    """p (1 - p) / (n - 1): 4 of 10 in one bin, all said to be 0.5."""
    said, seen = np.full(10, 0.5), np.array([1] * 4 + [0] * 6)
    error = np.sqrt(0.4 * 0.6 / 9)
    assert measured(said, seen, np.arange(10)).noise.value == pytest.approx(np.sqrt(2 / np.pi) * error)


def test_groups_that_fail_together_are_noisier() -> None:
    rng = np.random.default_rng(3)
    said = np.full(200, 0.5)
    groups = np.repeat(np.arange(20), 10)
    seen = np.repeat(rng.permutation([0] * 10 + [1] * 10), 10)
    assert measured(said, seen, groups).noise.value > 2 * measured(said, seen, np.arange(200)).noise.value


def test_one_group_tells_nothing_of_noise() -> None:
    said, seen = np.full(8, 0.8), np.array([1, 1, 1, 1, 0, 0, 0, 0])
    found = measured(said, seen, np.zeros(8, np.int64))
    assert (found.noise.value, found.debiased.value) == (0.0, pytest.approx(0.3))


def test_labels_of_one_row_are_one_group() -> None:
    rng = np.random.default_rng(4)
    said = rng.uniform(0, 1, (60, 3))
    seen = rng.random((60, 3)) < said
    together = unnoised(said, seen, bin_of(said), Grouped.of(np.arange(60)))
    flat = unnoised(said.ravel(), seen.ravel(), bin_of(said.ravel()), Grouped.of(np.repeat(np.arange(60), 3)))
    assert together == flat


@given(rows=st.integers(1, 60), groups=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_noise_is_only_ever_taken_off(rows: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    said, seen = rng.random(rows), rng.integers(2, size=rows)
    found = measured(said, seen, rng.integers(groups, size=rows))
    assert 0 <= found.debiased.value <= ece(said, seen) + 1e-12
    assert found.noise.value >= 0
