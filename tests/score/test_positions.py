"""Row numbers as bits and runs, ids as bits of their hash: the same sets as Python's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.rows.seen import SeenIds
from app.score.positions import Positions, from_runs, to_runs

NUMBERS = st.lists(st.integers(0, 5000))


@given(NUMBERS, NUMBERS)
def test_positions_are_a_set(added: list[int], asked: list[int]) -> None:
    positions = Positions(added)
    assert len(positions) == len(set(added))
    assert [number in positions for number in asked] == [number in set(added) for number in asked]


@given(st.sets(st.integers(0, 5000)))
def test_runs_hold_what_went_in(numbers: set[int]) -> None:
    assert sorted(from_runs(to_runs(numbers))) == sorted(numbers)


def test_rows_of_a_shard_are_one_run() -> None:
    assert to_runs(range(3, 40_000, 4)) == [(3, 39_999, 4)]


@given(st.lists(st.text(max_size=3)))
def test_an_id_is_new_once(ids: list[str]) -> None:
    seen = SeenIds()
    assert [seen.is_new(one) for one in ids] == [one not in ids[:place] for place, one in enumerate(ids)]
    assert len(seen) == len(set(ids))


def test_ids_by_the_thousand_stay_apart() -> None:
    seen = SeenIds()
    assert all(seen.is_new(f"row-{number}") for number in range(20_000))
    assert not any(seen.is_new(f"row-{number}") for number in range(20_000))
