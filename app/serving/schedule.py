"""Who is let in and who goes next: a state machine without clock, thread or loop of its own.

Time is handed in, so that a test can play any history. A row is a Ticket from admission to the end of
its answer, and every ticket leaves exactly once.

- Admission: a row is refused at once if, by estimate, it cannot be answered within its deadline. That
  keeps goodput at capacity when far more is offered (Maurer, Fail at Scale, ACM Queue 2015; Gujarati et
  al., Clockwork, OSDI 2020).
- Order: interactive rows first; batch rows ride along in spare places and are owed at least their share.
- Batches: rows of one model, the oldest first, as many as fit. No row waits for company.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Generic, TypeVar

T = TypeVar("T")

BATCH_SHARE: Final = 0.1  # of rows, while both classes wait
_MARGIN: Final = 0.5  # of the time left: estimates err, loops lag, and an answer must still be sent


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"


class _State(StrEnum):
    ADMITTED = "admitted"  # its body is being read or decoded
    QUEUED = "queued"
    RUNNING = "running"
    LEFT = "left"


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """One row's place. Times are seconds on the caller's clock."""

    priority: Priority
    deadline_s: float
    admitted_s: float
    arrived_s: float  # when its body was in: how long a client took to send it is not our wait
    size_bytes: int
    cost_s: float  # what it is expected to add; a guess until it is queued
    predicted_s: float  # from admission to answer, as expected at admission
    key: Hashable = None
    payload: T | None = None
    queued_s: float = 0.0
    state: _State = field(default=_State.ADMITTED)

    @property
    def is_open(self) -> bool:
        return self.state is not _State.LEFT

    @property
    def least_s(self) -> float:
        """What must be left of its time for it to be run: its cost, but never more than half of its patience.

        An estimate that is far too high is corrected by running such rows, and by nothing else.
        """
        return min(self.cost_s, (self.deadline_s - self.arrived_s) / 2)


class Refused(Exception):
    """There is no place. `wait_s` is how long what is waiting now will take."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """What to run next, and the rows that can no longer be answered in time."""

    batch: list[Ticket[T]]
    expired: list[Ticket[T]]


class Schedule(Generic[T]):
    """The places of one executor."""

    def __init__(self, *, max_batch_size: int, max_rows: int, max_bytes: int) -> None:
        self._max_batch_size = max_batch_size
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._queues: dict[Priority, dict[Hashable, deque[Ticket[T]]]] = {p: {} for p in Priority}
        self._backlog_s: dict[Priority, float] = dict.fromkeys(Priority, 0.0)
        self._waiting: dict[Priority, int] = dict.fromkeys(Priority, 0)  # queued only
        self._open = 0
        self._bytes = 0
        self._owed = 0.0  # rows that the batch class may take before the interactive one
        self._busy_until_s = 0.0
        self._running: list[Ticket[T]] = []
        self._now_s = 0.0  # of the present take
        self._late: list[Ticket[T]] = []  # what it met and dropped
        self._bias = 1.0  # how far admissions' predictions fell short, lately

    # --- admission --------------------------------------------------------------------------

    def admit(
        self,
        now_s: float,
        *,
        priority: Priority,
        deadline_s: float,
        size_bytes: int,
        cost_s: float,
        launch_s: float,
    ) -> Ticket[T]:
        """A place for a row that is expected to cost `cost_s`, before its body is read.

        Raises Refused: too many rows or bytes are in, or the deadline cannot be kept.
        """
        wait_s = self.wait_s(now_s, priority, launch_s=launch_s)
        is_full = self._open >= self._max_rows or self._bytes + size_bytes > self._max_bytes
        too_late = wait_s + launch_s + cost_s > _MARGIN * (deadline_s - now_s)
        if self._open and (is_full or too_late):  # the first row is let in whatever the estimate says
            raise Refused(wait_s)
        self._open += 1
        self._bytes += size_bytes
        self._shift_backlog(priority, cost_s)
        predicted_s = wait_s / self._bias + launch_s + cost_s
        return Ticket(
            priority=priority,
            deadline_s=deadline_s,
            admitted_s=now_s,
            arrived_s=now_s,
            size_bytes=size_bytes,
            cost_s=cost_s,
            predicted_s=predicted_s,
        )

    def wait_s(self, now_s: float, priority: Priority, *, launch_s: float) -> float:
        """How long a row of this class that came now would wait for its run."""
        busy_s = max(0.0, self._busy_until_s - now_s) if self._running else 0.0
        ahead_s = self._backlog_s[Priority.INTERACTIVE]
        if priority is Priority.BATCH:
            ahead_s += self._backlog_s[Priority.BATCH]
        elif self._backlog_s[Priority.BATCH]:
            ahead_s /= 1 - BATCH_SHARE
        still_running = sum(ticket.is_open for ticket in self._running)
        launches = math.ceil((self._open - still_running) / self._max_batch_size)
        return self._bias * (busy_s + ahead_s + launches * launch_s)

    def enqueue(self, ticket: Ticket[T], now_s: float, *, key: Hashable, payload: T, cost_s: float) -> None:
        """The row is decoded: it may run, with rows of the same key."""
        assert ticket.state is _State.ADMITTED, "a row is queued once, after admission"
        self._shift_backlog(ticket.priority, cost_s - ticket.cost_s)
        ticket.cost_s, ticket.key, ticket.payload, ticket.queued_s = cost_s, key, payload, now_s
        ticket.state = _State.QUEUED
        self._queues[ticket.priority].setdefault(key, deque()).append(ticket)
        self._waiting[ticket.priority] += 1

    def grow(self, ticket: Ticket[T], size_bytes: int) -> None:
        """The row's body takes so many bytes at least, whatever was said at admission.

        Raises Refused, and changes nothing, where that is more than there is room for beside others.
        """
        more_bytes = size_bytes - ticket.size_bytes
        if more_bytes <= 0:
            return
        if self._open > 1 and self._bytes + more_bytes > self._max_bytes:
            raise Refused(0.0)
        ticket.size_bytes = size_bytes
        self._bytes += more_bytes

    def leave(self, ticket: Ticket[T]) -> None:
        """The row is over, answered or not. Calling it again does nothing."""
        if ticket.state is _State.QUEUED:
            ticket.payload = None  # the ticket may stand in its queue for as long as a run hangs
        self._close(ticket)

    def _close(self, ticket: Ticket[T]) -> None:
        if ticket.state is _State.LEFT:
            return
        if ticket.state is _State.QUEUED:
            self._waiting[ticket.priority] -= 1
        if ticket.state is not _State.RUNNING:
            self._shift_backlog(ticket.priority, -ticket.cost_s)
        ticket.state = _State.LEFT
        self._open -= 1
        self._bytes -= ticket.size_bytes

    # --- batches ----------------------------------------------------------------------------

    def take(self, now_s: float) -> Taken[T]:
        """The next batch, if any row waits; rows met on the way whose time is up come out beside it."""
        self._now_s, self._late = now_s, []
        batch = self._lead(Priority.BATCH, int(self._owed)) if self._owed >= 1 else []
        if batch:
            self._fill(batch, Priority.INTERACTIVE)
        else:
            first, second = Priority.INTERACTIVE, Priority.BATCH
            batch = self._lead(first, self._max_batch_size) or self._lead(second, self._max_batch_size)
            self._fill(batch, first)
            self._fill(batch, second)
        self._settle(batch)
        for ticket in batch:
            ticket.state = _State.RUNNING
            self._shift_backlog(ticket.priority, -ticket.cost_s)
        self._running = batch
        return Taken(batch, self._late)

    def started(self, now_s: float, *, launch_s: float) -> None:
        """The batch just taken is running; it should take a launch and its rows' costs."""
        self._busy_until_s = now_s + launch_s + sum(ticket.cost_s for ticket in self._running)

    def finished(self, now_s: float) -> None:
        """The executor is free. Compares what its rows took with what was predicted."""
        for ticket in self._running:
            if ticket.predicted_s > 0:
                ratio = (now_s - ticket.arrived_s) / ticket.predicted_s
                self._bias += 0.02 * (min(max(ratio, 0.25), 8.0) - self._bias)
        self._bias = max(self._bias, 1.0)
        self._running = []

    # --- seen from outside ------------------------------------------------------------------

    @property
    def open_rows(self) -> int:
        """Rows let in and not yet over."""
        return self._open

    @property
    def open_bytes(self) -> int:
        return self._bytes

    def waiting(self, priority: Priority) -> int:
        """Decoded rows that wait for their run."""
        return self._waiting[priority]

    # --- inside -----------------------------------------------------------------------------

    def _lead(self, priority: Priority, most: int) -> list[Ticket[T]]:
        """Rows of one key, that of the oldest row of the class."""
        queues = self._queues[priority]
        heads = [(key, self._head(queue)) for key, queue in queues.items()]
        for key in [key for key, head in heads if head is None]:
            del queues[key]
        waiting = [(head.queued_s, key) for key, head in heads if head is not None]
        if not waiting:
            return []
        _, oldest = min(waiting, key=lambda pair: pair[0])
        return self._pop(priority, oldest, min(most, self._max_batch_size))

    def _fill(self, batch: list[Ticket[T]], priority: Priority) -> None:
        """Spare places go to rows that can run with these."""
        spare = self._max_batch_size - len(batch)
        if batch and spare:
            batch += self._pop(priority, batch[0].key, spare)

    def _pop(self, priority: Priority, key: Hashable, most: int) -> list[Ticket[T]]:
        queue = self._queues[priority].get(key, deque())
        popped: list[Ticket[T]] = []
        while len(popped) < most and self._head(queue) is not None:
            popped.append(queue.popleft())
        if not queue:
            self._queues[priority].pop(key, None)
        self._waiting[priority] -= len(popped)
        return popped

    def _head(self, queue: deque[Ticket[T]]) -> Ticket[T] | None:
        """The oldest row that is wanted and has time left; those before it are dropped here."""
        while queue:
            ticket = queue[0]
            is_late = ticket.deadline_s <= self._now_s + ticket.least_s
            if ticket.is_open and not is_late:
                return ticket
            queue.popleft()
            if ticket.is_open:
                self._late.append(ticket)
                self._close(ticket)
        return None

    def _settle(self, batch: list[Ticket[T]]) -> None:
        """What this batch adds to the batch class's claim; no claim while nobody of it waits."""
        if not self._waiting[Priority.BATCH]:
            self._owed = 0.0
            return
        interactive = sum(ticket.priority is Priority.INTERACTIVE for ticket in batch)
        earned = interactive * BATCH_SHARE / (1 - BATCH_SHARE)
        self._owed = max(0.0, self._owed + earned - (len(batch) - interactive))

    def _shift_backlog(self, priority: Priority, by_s: float) -> None:
        rest_s = self._backlog_s[priority] + by_s
        self._backlog_s[priority] = rest_s if rest_s > 1e-9 else 0.0  # sums of floats do not end at zero
