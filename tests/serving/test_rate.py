"""The rate of a caller: never more than its burst and what time has earned it, never less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.rate import BURST_S, Rate


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@given(
    per_s=st.floats(0.01, 1000),
    steps=st.lists(st.tuples(st.floats(0, 5), st.sampled_from("ab")), max_size=200),
)
def test_no_window_holds_more_than_a_burst_and_what_time_earned(
    per_s: float, steps: list[tuple[float, str]]
) -> None:
    clock = Clock()
    rate = Rate(per_s, clock=clock)
    granted: dict[str, list[float]] = {"a": [], "b": []}
    for wait_s, name in steps:
        clock.now_s += wait_s
        if rate.take(name) == 0:
            granted[name].append(clock.now_s)
    burst = max(1.0, per_s * BURST_S)
    for times in granted.values():
        for first, start_s in enumerate(times):
            for count, end_s in enumerate(times[first:], start=1):
                assert count <= burst + (end_s - start_s) * per_s + 1e-6


@given(per_s=st.floats(0.01, 1000), asked=st.integers(1, 50))
def test_who_waits_as_long_as_told_is_let_in(per_s: float, asked: int) -> None:
    clock = Clock()
    rate = Rate(per_s, clock=clock)
    for _ in range(asked):
        wait_s = rate.take("a")
        if wait_s:
            clock.now_s += wait_s + 1e-6
            assert rate.take("a") == 0
        assert rate.take("another") == 0 or asked > 1, "callers do not share"


def test_a_burst_is_two_seconds_worth() -> None:
    rate = Rate(10, clock=Clock())
    assert [rate.take("a") for _ in range(20)] == [0] * 20
    assert rate.take("a") == pytest.approx(0.1)
