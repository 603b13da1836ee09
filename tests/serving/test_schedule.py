"""The schedule as a state machine: any history, played on a clock of our own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from app.serving.schedule import Priority, Refused, Schedule, Ticket

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def schedule(*, max_batch_size: int = 4, max_rows: int = 10_000, max_bytes: int = 10**9) -> Schedule[int]:
    return Schedule(max_batch_size=max_batch_size, max_rows=max_rows, max_bytes=max_bytes)


def admitted(
    places: Schedule[int],
    *,
    now_s: float = 0.0,
    priority: Priority = INTERACTIVE,
    deadline_s: float = 1e9,
    cost_s: float = 0.001,
    size_bytes: int = 1,
) -> Ticket[int]:
    return places.admit(
        now_s, priority=priority, deadline_s=deadline_s, size_bytes=size_bytes, cost_s=cost_s, launch_s=0.0
    )


def queued(places: Schedule[int], payload: int, *, key: str = "model", **how: Any) -> Ticket[int]:
    ticket = admitted(places, **how)
    places.enqueue(ticket, how.get("now_s", 0.0), key=key, payload=payload, cost_s=how.get("cost_s", 0.001))
    return ticket


def served(places: Schedule[int], *, now_s: float = 0.0) -> list[int | None]:
    """Take a batch, finish it, and let its rows leave."""
    batch = places.take(now_s).batch
    places.started(now_s, launch_s=0.0)
    places.finished(now_s)
    payloads = [ticket.payload for ticket in batch]
    for ticket in batch:
        places.leave(ticket)
    return payloads


def test_the_oldest_go_first_as_many_as_fit() -> None:
    places = schedule()
    for row in range(6):
        queued(places, row)
    assert [served(places), served(places), served(places)] == [[0, 1, 2, 3], [4, 5], []]


def test_rows_of_one_model_share_a_batch_and_the_oldest_model_leads() -> None:
    places = schedule()
    for row, key in enumerate(["a", "b", "a", "b"]):
        queued(places, row, key=key, now_s=float(row))
    assert [served(places), served(places)] == [[0, 2], [1, 3]]


def test_batch_rows_ride_in_spare_places() -> None:
    places = schedule()
    queued(places, 100, priority=BATCH)
    queued(places, 1)
    assert served(places) == [1, 100]


@pytest.mark.parametrize("max_batch_size", [1, 4, 32])
@pytest.mark.parametrize("key", ["model", "other"])
def test_the_batch_class_gets_a_tenth_however_busy_the_other_is(max_batch_size: int, key: str) -> None:
    places = schedule(max_batch_size=max_batch_size)
    counts = {INTERACTIVE: 0, BATCH: 0}
    for row in range(5000):
        queued(places, row, priority=BATCH, key=key)
    for _ in range(3000 // max_batch_size):
        while places.waiting(INTERACTIVE) < 2 * max_batch_size:
            queued(places, 0)
        batch = places.take(0.0).batch
        for ticket in batch:
            counts[ticket.priority] += 1
            places.leave(ticket)
        places.finished(0.0)
    share = counts[BATCH] / sum(counts.values())
    assert share == pytest.approx(0.1, abs=0.02)


def test_a_row_that_cannot_be_answered_in_time_is_refused_at_once() -> None:
    places = schedule()
    for row in range(50):
        queued(places, row, cost_s=0.01)
    admitted(places, deadline_s=1.2, cost_s=0.01)
    with pytest.raises(Refused) as refused:
        admitted(places, deadline_s=0.5, cost_s=0.01)
    assert refused.value.wait_s == pytest.approx(0.51)


def test_an_idle_server_lets_the_first_row_in_whatever_it_expects() -> None:
    assert admitted(schedule(), deadline_s=0.001, cost_s=10).is_open


def test_batch_rows_wait_behind_interactive_ones() -> None:
    places = schedule()
    for row in range(20):
        queued(places, row, cost_s=0.01, priority=BATCH)
    assert places.wait_s(0.0, INTERACTIVE, launch_s=0.0) == 0.0
    assert places.wait_s(0.0, BATCH, launch_s=0.0) == pytest.approx(0.2)


def test_rows_and_bytes_are_bounded() -> None:
    places = schedule(max_rows=2)
    admitted(places)
    last = admitted(places)
    with pytest.raises(Refused):
        admitted(places)
    places.leave(last)
    assert admitted(places).is_open

    places = schedule(max_bytes=100)
    admitted(places, size_bytes=60)
    with pytest.raises(Refused):
        admitted(places, size_bytes=41)
    admitted(places, size_bytes=40)
    assert places.open_bytes == 100


def test_rows_whose_time_is_up_are_not_run() -> None:
    places = schedule()
    late = queued(places, 1, deadline_s=5.0)
    queued(places, 2, deadline_s=50.0)
    taken = places.take(6.0)
    assert [ticket.payload for ticket in taken.batch] == [2]
    assert taken.expired == [late]


def test_a_row_is_run_whatever_it_is_thought_to_cost_while_half_of_its_time_is_left() -> None:
    """Or an estimate that is far too high would never be corrected."""
    places = schedule()
    queued(places, 1, now_s=10.0, deadline_s=15.0, cost_s=60.0)
    assert served(places, now_s=12.4) == [1]
    late = queued(places, 2, now_s=20.0, deadline_s=25.0, cost_s=60.0)
    taken = places.take(22.6)
    assert (taken.batch, taken.expired) == ([], [late])


def test_a_row_that_leaves_its_queue_takes_its_payload_with_it() -> None:
    places = schedule()
    gone, late = queued(places, 1), queued(places, 2, deadline_s=5.0)
    places.leave(gone)
    assert gone.payload is None
    assert places.take(6.0).expired == [late]
    assert late.payload == 2, "who is told that it is late"


def test_estimates_that_fall_short_are_corrected() -> None:
    """Rows that take four times what was predicted make the next predictions longer."""
    places = schedule(max_batch_size=1)
    for step in range(300):
        ticket = queued(places, step, now_s=step * 1.0, cost_s=0.1)
        places.take(step * 1.0)
        places.started(step * 1.0, launch_s=0.0)
        places.finished(step + 0.4)
        places.leave(ticket)
    queued(places, 0, now_s=1000.0, cost_s=0.1)
    assert places.wait_s(1000.0, INTERACTIVE, launch_s=0.0) == pytest.approx(0.4, rel=0.05)


class AnyHistory(RuleBasedStateMachine):
    """Admit, queue, hang up, run, finish, let time pass, in any order."""

    admitted_rows = Bundle("admitted_rows")
    queued_rows = Bundle("queued_rows")

    def __init__(self) -> None:
        super().__init__()
        self.places = schedule(max_batch_size=3, max_rows=12, max_bytes=1000)
        self.now_s = 0.0
        self.open: set[int] = set()
        self.order: list[Ticket[int]] = []
        self.running: list[Ticket[int]] = []
        self.is_running = False
        self.rows = 0

    @rule(
        target=admitted_rows,
        priority=st.sampled_from(Priority),
        patience_s=st.floats(0.1, 20),
        cost_s=st.floats(0, 0.5),
        size_bytes=st.integers(0, 300),
    )
    def admit(
        self, priority: Priority, patience_s: float, cost_s: float, size_bytes: int
    ) -> Ticket[int] | None:
        try:
            ticket = admitted(
                self.places,
                now_s=self.now_s,
                priority=priority,
                deadline_s=self.now_s + patience_s,
                cost_s=cost_s,
                size_bytes=size_bytes,
            )
        except Refused as refused:
            assert refused.wait_s >= 0
            assert self.open, "the first row is always let in"
            return None
        self.open.add(id(ticket))
        return ticket

    @rule(
        target=queued_rows,
        ticket=consumes(admitted_rows),
        key=st.sampled_from("ab"),
        cost_s=st.floats(0, 0.5),
    )
    def enqueue(self, ticket: Ticket[int] | None, key: str, cost_s: float) -> Ticket[int] | None:
        if ticket is not None and ticket.is_open:
            self.rows += 1
            self.places.enqueue(ticket, self.now_s, key=key, payload=self.rows, cost_s=cost_s)
            self.order.append(ticket)
        return ticket

    @rule(ticket=admitted_rows, size_bytes=st.integers(0, 600))
    def grow(self, ticket: Ticket[int] | None, size_bytes: int) -> None:
        if ticket is None or not ticket.is_open:
            return
        before = self.places.open_bytes
        more = max(0, size_bytes - ticket.size_bytes)
        try:
            self.places.grow(ticket, size_bytes)
        except Refused:
            assert before + more > 1000
            assert len(self.open) > 1, "who is alone may always"
            assert self.places.open_bytes == before
        else:
            assert self.places.open_bytes == before + more

    @rule(ticket=st.one_of(admitted_rows, queued_rows))
    def leave(self, ticket: Ticket[int] | None) -> None:
        if ticket is not None:
            self.places.leave(ticket)
            self.open.discard(id(ticket))

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: not self.is_running)
    @rule()
    def take(self) -> None:
        waiting = [ticket for ticket in self.order if ticket.is_open]
        taken = self.places.take(self.now_s)
        for ticket in taken.expired:
            assert ticket in waiting
            assert not ticket.is_open
            assert ticket.deadline_s <= self.now_s + ticket.least_s
            self.open.discard(id(ticket))
        alive = [ticket for ticket in waiting if ticket not in taken.expired]
        in_time = [ticket for ticket in alive if ticket.deadline_s > self.now_s + ticket.least_s]
        assert bool(taken.batch) == bool(in_time), "work-conserving: what waits is run"
        alive = in_time
        assert len(taken.batch) <= 3
        assert len({ticket.key for ticket in taken.batch}) <= 1
        for priority in Priority:
            mine = [ticket for ticket in taken.batch if ticket.priority is priority]
            key = taken.batch[0].key if taken.batch else None
            assert mine == [t for t in alive if t.priority is priority and t.key == key][: len(mine)]
        self.order = [ticket for ticket in waiting if ticket.is_open and ticket not in taken.batch]
        self.running = taken.batch
        if taken.batch:
            self.is_running = True
            self.places.started(self.now_s, launch_s=0.01)

    @precondition(lambda self: self.is_running)
    @rule(seconds=st.floats(0, 2))
    def finish(self, seconds: float) -> None:
        self.now_s += seconds
        self.places.finished(self.now_s)
        for ticket in self.running:
            self.places.leave(ticket)
            self.open.discard(id(ticket))
        self.running, self.is_running = [], False

    @invariant()
    def the_books_balance(self) -> None:
        assert self.places.open_rows == len(self.open)
        assert self.places.open_bytes >= 0
        waiting = [ticket for ticket in self.order if ticket.is_open]
        for priority in Priority:
            assert self.places.waiting(priority) == sum(t.priority is priority for t in waiting)
            assert self.places.wait_s(self.now_s, priority, launch_s=0.0) >= 0
        if not self.open:
            assert self.places.open_bytes == 0
        if not self.open and not self.is_running:
            assert self.places.wait_s(self.now_s, BATCH, launch_s=0.0) == 0


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
