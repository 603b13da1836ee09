"""Goodput under overload, in a model: Poisson arrivals, a server of known cost, a clock of our own.

What a real server does is measured by `make overload`; here the policy alone is on trial, exactly.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from app.serving.schedule import Priority, Refused, Schedule, Ticket

_LAUNCH_S = 0.008
_ROW_S = 0.002
_MAX_BATCH = 16
_CAPACITY = _MAX_BATCH / (_LAUNCH_S + _MAX_BATCH * _ROW_S)  # 400 rows a second
_DECODE_S = 0.001
_SECONDS = 30


@dataclass
class Outcome:
    in_time: int = 0
    refused: int = 0
    expired: int = 0
    late: int = 0
    longest_s: float = 0.0

    @property
    def goodput(self) -> float:
        return self.in_time / _SECONDS / _CAPACITY


class Simulation:
    """Events on a heap. `slower`: by how much rows take longer than the schedule is told."""

    def __init__(self, *, load: float, deadline_s: float, slower: float) -> None:
        self.outcome = Outcome()
        self._deadline_s, self._slower = deadline_s, slower
        self._places: Schedule[int] = Schedule(max_batch_size=_MAX_BATCH, max_rows=10_000, max_bytes=10**9)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()  # of events at the same moment
        self._now_s = 0.0
        self._is_running = False
        chance = random.Random(0)  # noqa: S311
        when_s = 0.0
        while when_s < _SECONDS:
            when_s += chance.expovariate(load * _CAPACITY)
            self._at(when_s, self._arrive)

    def play(self) -> Outcome:
        while self._events:
            self._now_s, _, happen = heapq.heappop(self._events)
            happen()
            if not self._is_running:
                self._run()
        return self.outcome

    def _at(self, when_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), happen))

    def _arrive(self) -> None:
        try:
            ticket = self._places.admit(
                self._now_s,
                priority=Priority.INTERACTIVE,
                deadline_s=self._now_s + self._deadline_s,
                size_bytes=0,
                cost_s=_ROW_S,
                launch_s=_LAUNCH_S,
            )
        except Refused:
            self.outcome.refused += 1
        else:
            self._at(self._now_s + _DECODE_S, lambda: self._decoded(ticket))

    def _decoded(self, ticket: Ticket[int]) -> None:
        self._places.enqueue(ticket, self._now_s, key="model", payload=0, cost_s=_ROW_S)

    def _run(self) -> None:
        taken = self._places.take(self._now_s)
        self.outcome.expired += len(taken.expired)
        if taken.batch:
            self._is_running = True
            self._places.started(self._now_s, launch_s=_LAUNCH_S)
            takes_s = _LAUNCH_S + self._slower * _ROW_S * len(taken.batch)
            self._at(self._now_s + takes_s, lambda: self._finish(taken.batch))

    def _finish(self, batch: list[Ticket[int]]) -> None:
        self._places.finished(self._now_s)
        self._is_running = False
        for ticket in batch:
            self._places.leave(ticket)
            in_time = self._now_s <= ticket.deadline_s
            self.outcome.in_time += in_time
            self.outcome.late += not in_time
            self.outcome.longest_s = max(self.outcome.longest_s, self._now_s - ticket.admitted_s)


def simulate(*, load: float, deadline_s: float, slower: float = 1.0) -> Outcome:
    return Simulation(load=load, deadline_s=deadline_s, slower=slower).play()


@pytest.mark.parametrize("load", [1.1, 1.5, 2, 4])
def test_goodput_stays_at_capacity_however_much_is_offered(load: float) -> None:
    outcome = simulate(load=load, deadline_s=0.2)
    assert outcome.goodput >= 0.95
    assert outcome.late == 0
    assert outcome.expired <= 0.01 * outcome.in_time
    assert outcome.refused > 0


def test_nothing_is_refused_below_capacity() -> None:
    outcome = simulate(load=0.7, deadline_s=0.2)
    assert (outcome.refused, outcome.expired, outcome.late) == (0, 0, 0)
    assert outcome.longest_s < 0.15


@pytest.mark.parametrize("load", [2, 4])
def test_rows_that_take_longer_than_expected_do_not_ruin_it(load: float) -> None:
    """Half as much again for each row: the true capacity falls to two thirds or so, goodput with it."""
    capacity = _MAX_BATCH / (_LAUNCH_S + _MAX_BATCH * 1.5 * _ROW_S) / _CAPACITY
    outcome = simulate(load=load, deadline_s=0.2, slower=1.5)
    assert outcome.goodput >= 0.9 * capacity
    assert outcome.late + outcome.expired <= 0.05 * outcome.in_time
