"""How fast to ask, with a clock and a die of our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.score.pace import Limit, Rate, Size, pause_s


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_limit_grows_by_one_a_round_and_halves_when_refused() -> None:
    clock = Clock()
    limit = Limit(64, clock, value=8.0, is_starting=False)
    for _ in range(8):
        limit.answered(0.1)
    assert limit.now in (8, 9)
    limit.value = 9.0
    clock.now_s = 1.0
    limit.refused(began_s=0.9)
    assert limit.value == 4.5


def test_it_doubles_until_answers_become_slow() -> None:
    limit = Limit(64, Clock(), value=4.0)
    for _ in range(4):
        limit.answered(0.1)
    assert limit.now == 8
    limit.answered(0.3)
    limit.answered(0.1)
    assert limit.now == 8


def test_refusals_of_one_moment_count_once() -> None:
    clock = Clock()
    limit = Limit(64, clock)
    limit.value = 16.0
    clock.now_s = 1.0
    for _ in range(16):
        limit.refused(began_s=0.5)
    assert limit.now == 8
    limit.refused(began_s=1.2)
    assert limit.now == 4


def test_slow_answers_stop_the_growth() -> None:
    limit = Limit(64, Clock())
    limit.answered(0.1)
    before = limit.value
    limit.answered(0.5)
    assert limit.value == before


@given(st.lists(st.one_of(st.none(), st.floats(0.001, 10)), max_size=200), st.integers(1, 32))
def test_the_limit_stays_between_one_and_the_most(events: list[float | None], most: int) -> None:
    clock = Clock()
    limit = Limit(most, clock)
    for event in events:
        clock.now_s += 1
        if event is None:
            limit.refused(began_s=clock.now_s)
        else:
            limit.answered(event)
        assert 1 <= limit.now <= most


@given(st.floats(0.5, 1000), st.lists(st.floats(0, 0.5), min_size=1, max_size=50))
def test_no_second_has_more_rows_than_the_rate(per_second: float, gaps: list[float]) -> None:
    clock = Clock()
    rate = Rate(per_second, clock)
    let_in = []
    for gap in gaps:
        clock.now_s += gap
        clock.now_s += rate.wait_s()
        let_in.append(clock.now_s)
    for first in range(len(let_in)):
        inside = [moment for moment in let_in[first:] if moment <= let_in[first] + 1]
        assert len(inside) <= per_second * 1.1 + 2


def test_a_pause_is_after_what_the_server_asked_for() -> None:
    assert pause_s(1, retry_after_s=3, chance=lambda: 0.5) == 3.1
    assert pause_s(1, chance=lambda: 0.0) == 0.0
    assert pause_s(50, chance=lambda: 1.0) == 10.0


@given(st.lists(st.one_of(st.none(), st.integers(1, 64)), max_size=200), st.integers(1, 64))
def test_the_size_of_requests_stays_between_one_and_the_most(events: list[int | None], most: int) -> None:
    size = Size(most)
    for event in events:
        if event is None:
            size.answered(size.now)
        else:
            size.lower(event)
            assert size.now <= event
        assert 1 <= size.now <= most


def test_requests_grow_again_but_never_beyond_what_the_server_takes() -> None:
    size = Size(64)
    size.bound(40)
    size.lower(10)
    for _ in range(32):
        assert size.now == 10
        size.answered(3)  # the last rows of an input tell nothing
        size.answered(10)
    assert size.now == 20
    for _ in range(64):
        size.answered(size.now)
    assert size.now == 40
