from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.calibrate.temperature import independent_rows

GROUPS = np.repeat(np.arange(100), 50)
RNG = np.random.default_rng(0)


def test_errors_that_ignore_the_groups_leave_about_as_many_as_rows() -> None:
    found = [independent_rows(RNG.random(5_000) < 0.2, GROUPS) for _ in range(20)]
    assert np.mean(found) == pytest.approx(5_000, rel=0.15)


def test_errors_of_whole_groups_leave_as_many_as_groups() -> None:
    assert independent_rows(np.isin(GROUPS, np.arange(0, 100, 4)), GROUPS) == 100


def test_groups_that_differ_a_little_are_in_between() -> None:
    chance = np.repeat(RNG.uniform(0.1, 0.5, 100), 50)
    assert 400 < independent_rows(RNG.random(5_000) < chance, GROUPS) < 2_500


def test_errors_in_few_groups_tell_nothing() -> None:
    few = np.zeros(5_000, bool)
    assert independent_rows(few, GROUPS) == 100
    few[:400:50] = True
    assert independent_rows(few, GROUPS) == 100


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=60))
def test_it_is_never_below_the_groups_nor_above_the_rows(rows: list[tuple[bool, int]]) -> None:
    wrong, groups = (np.array(values) for values in zip(*rows, strict=True))
    assert len(np.unique(groups)) <= independent_rows(wrong, groups) <= len(rows)
