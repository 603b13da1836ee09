"""The executor and the queue in front of it: whatever waits when it is free becomes the next batch.

Who is let in and who goes next is the Schedule's to say; here are the clock, the thread and the replies.
A row and its reply are one object from admission to answer, so an answer cannot reach the wrong caller.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar, cast

from app.runtime.predictor import PartRun
from app.serving.cost import CostModel
from app.serving.errors import DeadlineExceeded, Draining, NotReady, Overloaded
from app.serving.executor import Executor
from app.serving.schedule import Priority, Refused, Schedule, Ticket

log = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)


class Outcome(Protocol[Out_co]):
    """What a run gave: one result for each value, in order, and the parts it was made of."""

    @property
    def rows(self) -> Sequence[Out_co]: ...

    @property
    def parts(self) -> Sequence[PartRun]: ...


class Work(Protocol[In, Out_co]):
    """What rows are run by. Rows of the same work share batches."""

    def __hash__(self) -> int: ...

    @property
    def costs(self) -> CostModel: ...

    def execute(self, values: list[In]) -> Outcome[Out_co]: ...


class Observer(Protocol):
    """Told what happened, for metrics."""

    def ran(self, work: object, parts: Sequence[PartRun], *, rows: int, seconds: float) -> None: ...

    def abandoned(self, priority: Priority) -> None: ...


@dataclass(frozen=True, slots=True)
class Batched(Generic[Out]):
    """An answer and what it took."""

    value: Out
    queue_s: float
    run_s: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class Job(Generic[In, Out]):
    """A row's value and where its answer goes."""

    value: In
    reply: asyncio.Future[Batched[Out]]
    queued_s: float

    def fail(self, error: BaseException) -> None:
        if not self.reply.done():  # its caller may have hung up
            self.reply.set_exception(error)


class Batcher(Generic[In, Out]):
    """Runs one batch at a time, in a thread of its own.

    If a batch raises, it is split until the row at fault is alone: that caller gets the error, the others
    their answer. Nobody waits beyond their deadline, also when a run hangs; a run of more than `hang_s`
    makes the batcher refuse new rows until it ends.
    """

    def __init__(
        self,
        schedule: Schedule[Job[In, Out]],
        *,
        observer: Observer,
        hang_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._observer = observer
        self._hang_s = hang_s
        self._clock = clock
        self._arrival = asyncio.Event()
        self._draining = False
        self._executor = Executor()
        self._loop: asyncio.Task[None] | None = None
        self._running_since_s: float | None = None
        self._interactive = 0  # rows in
        self._interactive_s = -math.inf  # when the last of them left
        self.quiet = asyncio.Event()  # set while no interactive row is in
        self.quiet.set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._serve(), name="batcher")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Refuse new rows, answer everyone let in, stop; a run that hangs is left behind."""
        self.drain()
        assert self._loop is not None, "left without being entered"
        while not self._loop.done() and not self.is_stuck:
            await asyncio.wait({self._loop}, timeout=0.1)
        self._loop.cancel()
        self._executor.close()

    def drain(self) -> None:
        """Admit nobody from now on."""
        self._draining = True
        self._arrival.set()

    @property
    def is_draining(self) -> bool:
        return self._draining

    @property
    def is_stuck(self) -> bool:
        """Whether the present run takes so long that it may never end."""
        return self.running_s > self._hang_s

    @property
    def running_s(self) -> float:
        """For how long the present run has been going; 0 between runs."""
        return 0.0 if self._running_since_s is None else self._clock() - self._running_since_s

    def waiting(self, priority: Priority) -> int:
        """Decoded rows that wait for their run."""
        return self._schedule.waiting(priority)

    @property
    def open_rows(self) -> int:
        """Rows let in and not yet answered."""
        return self._schedule.open_rows

    @property
    def open_bytes(self) -> int:
        return self._schedule.open_bytes

    @contextmanager
    def admit(
        self, costs: CostModel, *, priority: Priority, timeout_s: float, size_bytes: int
    ) -> Iterator[Ticket[Job[In, Out]]]:
        """A place for one row, held while the block reads, decodes and submits it.

        Raises Draining, NotReady, or Overloaded if the row could not be answered within `timeout_s`.
        """
        if self._draining:
            raise Draining("The server is stopping. Send the request to another one.")
        if self.is_stuck:
            raise NotReady("The model does not answer. Send the request to another server.")
        now_s = self._clock()
        try:
            ticket = self._schedule.admit(
                now_s,
                priority=priority,
                deadline_s=now_s + timeout_s,
                size_bytes=size_bytes,
                cost_s=costs.mean_row_s,
                launch_s=costs.launch_s,
            )
        except Refused as refused:
            raise _overloaded(refused) from None
        self._count(priority, 1)
        try:
            yield ticket
        except asyncio.CancelledError:
            self._observer.abandoned(priority)
            raise
        finally:
            self._schedule.leave(ticket)
            self._count(priority, -1)
            self._arrival.set()

    def _count(self, priority: Priority, by: int) -> None:
        if priority is not Priority.INTERACTIVE:
            return
        self._interactive += by
        self._interactive_s = self._clock()
        if self._interactive:
            self.quiet.clear()
        else:
            self.quiet.set()

    @property
    def quiet_s(self) -> float:
        """For how long no interactive row has been in; 0 while one is."""
        return 0.0 if self._interactive else self._clock() - self._interactive_s

    def arrived(self, ticket: Ticket[Job[In, Out]]) -> None:
        """The row's body is in; from now on its wait is ours."""
        ticket.arrived_s = self._clock()

    def grow(self, ticket: Ticket[Job[In, Out]], size_bytes: int) -> None:
        """The row's body takes so many bytes at least. Raises Overloaded if there is no room for them."""
        try:
            self._schedule.grow(ticket, size_bytes)
        except Refused as refused:
            raise _overloaded(refused) from None

    def left_s(self, ticket: Ticket[Job[In, Out]]) -> float:
        """Seconds until the row's deadline."""
        return ticket.deadline_s - self._clock()

    async def submit(
        self, ticket: Ticket[Job[In, Out]], work: Work[In, Out], value: In, *, cost_s: float
    ) -> Batched[Out]:
        """Wait for the answer. Raises DeadlineExceeded, or what `work` raised for this row."""
        now_s = self._clock()
        reply = self._enqueue(ticket, work, value, cost_s=cost_s, now_s=now_s)
        self._arrival.set()
        async with self.in_time(ticket):
            return await reply

    @asynccontextmanager
    async def in_time(self, ticket: Ticket[Job[In, Out]]) -> AsyncIterator[None]:
        """Leave the block at the row's deadline. Raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(self.left_s(ticket)):
                yield
        except TimeoutError:
            raise deadline_exceeded() from None

    async def submit_all(
        self, work: Work[In, Out], rows: Sequence[tuple[Ticket[Job[In, Out]], In, float]]
    ) -> list[Batched[Out] | Exception]:
        """Likewise for several rows at once, each with its cost: what became of each, in order.

        They are queued in one step, so they share a run if there is room in it; nobody waits beyond the last
        of their deadlines.
        """
        if not rows:
            return []
        now_s = self._clock()
        replies = [
            self._enqueue(ticket, work, value, cost_s=cost_s, now_s=now_s) for ticket, value, cost_s in rows
        ]
        self._arrival.set()
        try:
            await asyncio.wait(replies, timeout=max(ticket.deadline_s for ticket, _, _ in rows) - now_s)
            return [_settled(reply) for reply in replies]
        finally:
            for reply in replies:
                reply.cancel()  # of those that nobody waits for any more

    def _enqueue(
        self, ticket: Ticket[Job[In, Out]], work: Work[In, Out], value: In, *, cost_s: float, now_s: float
    ) -> asyncio.Future[Batched[Out]]:
        reply: asyncio.Future[Batched[Out]] = asyncio.get_running_loop().create_future()
        self._schedule.enqueue(
            ticket, now_s, key=work, payload=Job(value, reply, queued_s=now_s), cost_s=cost_s
        )
        return reply

    async def _serve(self) -> None:
        while self._schedule.open_rows or not self._draining:
            self._arrival.clear()
            taken = self._schedule.take(self._clock())
            for ticket in taken.expired:
                _job(ticket).fail(deadline_exceeded())
            if taken.batch:
                await self._run(taken.batch)
            else:
                await self._arrival.wait()

    async def _run(self, batch: list[Ticket[Job[In, Out]]]) -> None:
        work = cast("Work[In, Out]", batch[0].key)
        self._running_since_s = self._clock()
        self._schedule.started(self._running_since_s, launch_s=work.costs.launch_s)
        try:
            await self._answer(work, [_job(ticket) for ticket in batch])
        finally:
            self._running_since_s = None
            self._schedule.finished(self._clock())

    async def _answer(self, work: Work[In, Out], jobs: list[Job[In, Out]]) -> None:
        started_s = self._clock()
        try:
            outcome = await self._executor.call(_checked, work, [job.value for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                log.exception("one row made the model fail")
                jobs[0].fail(error)
                return
            await self._answer(work, jobs[: len(jobs) // 2])
            await self._answer(work, jobs[len(jobs) // 2 :])
            return
        run_s = self._clock() - started_s
        for job, value in zip(jobs, outcome.rows, strict=True):
            if not job.reply.done():  # its caller may have hung up
                job.reply.set_result(Batched(value, started_s - job.queued_s, run_s, len(jobs)))
        work.costs.observe(outcome.parts, rows=len(jobs), total_s=run_s)
        self._observer.ran(work, outcome.parts, rows=len(jobs), seconds=run_s)


def _checked(work: Work[In, Out], values: list[In]) -> Outcome[Out]:
    outcome = work.execute(values)
    if len(outcome.rows) != len(values):
        raise RuntimeError(f"{len(values)} values went in, {len(outcome.rows)} came out")
    return outcome


def _job(ticket: Ticket[Job[In, Out]]) -> Job[In, Out]:
    assert ticket.payload is not None, "a queued ticket has its job"
    return ticket.payload


def _settled(reply: asyncio.Future[Batched[Out]]) -> Batched[Out] | Exception:
    if not reply.done():
        return deadline_exceeded()
    error = reply.exception()
    if error is None:
        return reply.result()
    assert isinstance(error, Exception), "what ends a process ends it"
    return error


def _overloaded(refused: Refused) -> Overloaded:
    message = "Too much is waiting to answer in time. Try again later."
    return Overloaded(message, retry_after_s=refused.wait_s)


def deadline_exceeded() -> DeadlineExceeded:
    """What is said to whoever has no time left."""
    return DeadlineExceeded("There was no time left to answer. Allow more, or send less at once.")
