from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.measure.bootstrap import (
    Grouped,
    error_with_interval,
    measure_mean,
    measure_share,
    share_with_interval,
    wilson,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-9, 9)), min_size=1, max_size=30))
def test_sums_are_those_of_each_group(rows: list[tuple[int, int]]) -> None:
    groups, values = np.array(rows, np.int64).T
    grouped = Grouped.of(groups)
    wanted = [values[groups == group].sum() for group in np.unique(groups)]
    np.testing.assert_array_equal(grouped.sums(values[:, None].astype(float))[:, 0], wanted)


def test_every_draw_has_as_many_groups_as_there_are() -> None:
    grouped = Grouped.of(np.array([7, 7, 3, 9, 9]))
    weights = np.concatenate(list(grouped.draws(draws=200)))
    assert weights.shape == (200, 3)
    assert (weights.sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.2)


def test_intervals_hold_the_truth_19_times_in_20() -> None:
    rng, inside, worlds = np.random.default_rng(0), 0, 300
    for _ in range(worlds):
        values = rng.normal(size=200) + 3
        low, high = measure_mean(values, Grouped.of(np.arange(200)), draws=300).interval or (0, 0)
        inside += low <= 3 <= high
    assert inside / worlds == pytest.approx(0.95, abs=0.04)


def test_intervals_of_groups_hold_the_truth_where_those_of_rows_would_not() -> None:
    rng, inside, worlds = np.random.default_rng(0), np.zeros(2), 200
    groups = np.arange(60).repeat(10)
    for _ in range(worlds):
        values = (rng.normal(size=60).repeat(10) + rng.normal(size=600) / 3) + 3
        for at, chosen in enumerate((groups, np.arange(600))):
            low, high = measure_mean(values, Grouped.of(chosen), draws=300).interval or (0, 0)
            inside[at] += low <= 3 <= high
    assert inside[0] / worlds == pytest.approx(0.94, abs=0.04)
    assert inside[1] / worlds < 0.7


def test_the_same_rows_have_the_same_interval_in_any_order() -> None:
    values, groups = np.random.default_rng(0).normal(size=100), np.arange(100) // 4
    order = np.random.default_rng(1).permutation(100)
    one = measure_mean(values, Grouped.of(groups))
    other = measure_mean(values[order], Grouped.of(groups[order]))
    assert one.value == pytest.approx(other.value)
    assert one.interval == pytest.approx(other.interval)


def test_one_group_has_no_interval() -> None:
    assert measure_mean(np.arange(5.0), Grouped.of(np.zeros(5, np.int64))).interval is None


def test_rows_without_an_error_do_not_make_a_share_certain() -> None:
    grouped = Grouped.of(np.arange(100) // 2)
    assert measure_share(np.ones(100, bool), grouped).interval == wilson(1.0, 50)
    assert wilson(1.0, 50)[1] == 1
    assert share_with_interval(1.0, np.ones(10), grouped).interval == wilson(1.0, 50)
    assert share_with_interval(0.5, np.linspace(0, 1, 1_001), grouped).interval == pytest.approx(
        (0.025, 0.975)
    )


def test_the_interval_of_an_error_surrounds_it() -> None:
    moved = error_with_interval(0.02, np.linspace(0.03, 0.07, 101), Grouped.of(np.arange(3))).interval
    assert moved == pytest.approx((0.001, 0.039))


def test_wilson_agrees_with_the_textbook() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 250) == pytest.approx((0.9849, 1.0), abs=1e-4)
