"""The cost model finds the line that runs lie on, and says nothing absurd before it can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.predictor import PartRun
from app.serving.cost import CostModel, LinearCost


def part(name: str, rows: int, seconds: float, *, length: int = 1) -> PartRun:
    return PartRun(name, rows=rows, length=length, padding=0, seconds=seconds)


@given(fixed=st.floats(0, 0.1), per_row=st.floats(1e-5, 0.1))
def test_a_line_is_found(fixed: float, per_row: float) -> None:
    cost = LinearCost()
    for rows in [1, 8, 32, 2, 16, 5] * 4:
        cost.observe(rows, fixed + per_row * rows)
    assert cost.fixed_s == pytest.approx(fixed, abs=1e-6)
    assert cost.per_row_s == pytest.approx(per_row, rel=1e-3)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 10)), min_size=1, max_size=50))
def test_costs_are_never_negative(runs: list[tuple[int, float]]) -> None:
    cost = LinearCost()
    for rows, seconds in runs:
        cost.observe(rows, seconds)
        assert cost.fixed_s >= -1e-9
        assert cost.per_row_s >= 0


def test_what_changes_is_followed() -> None:
    cost = LinearCost()
    for rows in [1, 8, 32] * 20:
        cost.observe(rows, 0.001 * rows)
    for rows in [1, 8, 32] * 80:
        cost.observe(rows, 0.005 * rows)
    assert cost.per_row_s == pytest.approx(0.005, rel=0.05)


def test_a_row_costs_what_its_own_parts_cost() -> None:
    costs = CostModel()
    for rows in (1, 8, 32):
        parts = [
            part("image", rows, 0.004 + 0.0006 * rows),
            part("audio", rows, 0.002 + 0.0003 * rows, length=4000),
            part("fusion", rows, 0.001 + 0.0001 * rows),
        ]
        costs.observe(parts, rows=rows, total_s=sum(p.seconds for p in parts))
    assert costs.row_s({"image": 1, "audio": 0}) == pytest.approx(0.0007)
    assert costs.row_s({"image": 0, "audio": 3900}) == pytest.approx(0.0004)
    assert costs.row_s({"image": 1}, fused=7) == pytest.approx(0.0013), "an explained row"
    assert costs.launch_s == pytest.approx(0.007)


def warmed() -> CostModel:
    """A text costs 1 ms a run and 0.1 ms a row."""
    costs = CostModel()
    for _ in range(20):
        for rows in (1, 1, 1, 8):
            observe_text(costs, rows, 0.001 + 0.0001 * rows)
    return costs


def observe_text(costs: CostModel, rows: int, seconds: float, *, length: int = 5) -> None:
    costs.observe([part("text", rows, seconds, length=length)], rows=rows, total_s=seconds)


def test_one_run_that_stood_still_is_soon_forgotten() -> None:
    costs = warmed()
    observe_text(costs, 1, 30.0)
    assert costs.row_s({"text": 5}) < 0.001
    assert costs.mean_row_s < 0.001
    assert costs.launch_s < 0.003
    for _ in range(50):
        observe_text(costs, 1, 0.0011)
    assert costs.launch_s + costs.mean_row_s == pytest.approx(0.0011, rel=0.2)


def test_a_machine_that_became_slower_is_believed_when_it_says_so_again() -> None:
    costs = warmed()
    for _ in range(300):
        observe_text(costs, 1, 0.11)
    assert costs.launch_s + costs.row_s({"text": 5}) == pytest.approx(0.11, rel=0.2)
    assert costs.lone_row_s == pytest.approx(0.11, rel=0.2)


def test_what_a_rare_length_costs_to_launch_fades_while_nobody_sends_it() -> None:
    costs = warmed()
    for rows, seconds in ((4, 0.02), (1, 2.0), (2, 0.01)):
        observe_text(costs, rows, seconds, length=500)
    assert costs.launch_s > 0.1
    for _ in range(300):
        observe_text(costs, 1, 0.0011)
    assert costs.launch_s < 0.003


def test_a_row_of_which_nothing_is_known_is_not_charged_for_launches() -> None:
    """Those are counted once for each run, by whoever admits."""
    costs = warmed()
    assert costs.mean_row_s == pytest.approx(0.0001, rel=0.05)
    assert costs.launch_s == pytest.approx(0.001, rel=0.05)
    assert costs.lone_row_s == pytest.approx(0.0011, rel=0.05)


def test_an_unseen_length_borrows_from_the_nearest() -> None:
    costs = CostModel()
    for length, per_row in ((100, 0.001), (10_000, 0.1)):
        for rows in (1, 8):
            seconds = per_row * rows
            costs.observe([part("text", rows, seconds, length=length)], rows=rows, total_s=seconds)
    assert costs.row_s({"text": 150}) == pytest.approx(0.001)
    assert costs.row_s({"text": 60_000}) == pytest.approx(0.1)
    assert costs.row_s({"audio": 5}) == 0.0
