"""Everyone gets their own answer or their own error, exactly once, whatever the executor does."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.runtime.predictor import PartRun
from app.serving.batcher import Batched, Batcher
from app.serving.cost import CostModel
from app.serving.errors import DeadlineExceeded, Draining, NotReady, Overloaded
from app.serving.schedule import Priority, Schedule

INTERACTIVE = Priority.INTERACTIVE


@dataclass
class Results:
    rows: Sequence[int]
    parts: Sequence[PartRun] = ()


class Echo:
    """Work that negates its values, remembers batch sizes, and can be told to misbehave.

    Values in `poison` raise, in `short` lose a result, and it runs only while its gate is open.
    """

    def __init__(
        self,
        *,
        poison: frozenset[int] = frozenset(),
        short: frozenset[int] = frozenset(),
        is_open: bool = True,
    ) -> None:
        self.costs = CostModel()
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self._poison, self._short = poison, short
        if is_open:
            self.gate.set()

    def execute(self, values: list[int]) -> Results:
        self.gate.wait(20)
        self.sizes.append(len(values))
        if self._poison & set(values):
            raise ValueError("poison")
        return Results([-value for value in values if value not in self._short])


@dataclass
class Told:
    """An observer that remembers."""

    rows: list[int] = field(default_factory=list)
    left: int = 0

    def ran(self, _work: object, _parts: Sequence[PartRun], *, rows: int, seconds: float) -> None:
        assert seconds >= 0
        self.rows.append(rows)

    def abandoned(self, _priority: Priority) -> None:
        self.left += 1


def batcher(
    *, max_batch_size: int = 4, max_rows: int = 100, hang_s: float = 10, told: Told | None = None
) -> Batcher[int, int]:
    places = Schedule(max_batch_size=max_batch_size, max_rows=max_rows, max_bytes=1000)
    return Batcher(places, observer=told or Told(), hang_s=hang_s)


async def ask(queue: Batcher[int, int], work: Echo, value: int, *, timeout_s: float = 30.0) -> Batched[int]:
    with queue.admit(work.costs, priority=INTERACTIVE, timeout_s=timeout_s, size_bytes=1) as ticket:
        queue.arrived(ticket)
        return await queue.submit(ticket, work, value, cost_s=0.0)


async def until(true: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0)


async def running(queue: Batcher[int, int], work: Echo, value: int = 0) -> asyncio.Task[Batched[int]]:
    """A row that the executor has begun with."""
    task = asyncio.create_task(ask(queue, work, value))
    await until(lambda: queue.running_s > 0)
    return task


async def waiting(
    queue: Batcher[int, int], work: Echo, values: Sequence[int]
) -> list[asyncio.Task[Batched[int]]]:
    """Rows in the queue, in this order."""
    before = queue.waiting(INTERACTIVE)
    tasks = [asyncio.create_task(ask(queue, work, value)) for value in values]
    await until(lambda: queue.waiting(INTERACTIVE) == before + len(values))
    return tasks


def play(
    scenario: Callable[[Batcher[int, int]], Awaitable[object]], queue: Batcher[int, int] | None = None
) -> None:
    async def entered() -> None:
        async with queue or batcher() as open_queue:
            await scenario(open_queue)

    asyncio.run(entered())


def test_a_lone_request_does_not_wait_for_company() -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        answer = await ask(queue, Echo(), 7)
        assert (answer.value, answer.batch_size) == (-7, 1)

    play(scenario)


def test_what_waits_while_the_executor_runs_becomes_the_next_batch() -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(is_open=False)
        first = await running(queue, work)
        rest = await waiting(queue, work, range(1, 7))
        work.gate.set()
        answers = await asyncio.gather(first, *rest)
        assert work.sizes == [1, 4, 2]
        assert [answer.value for answer in answers] == [0, -1, -2, -3, -4, -5, -6]
        assert [answer.batch_size for answer in answers] == [1, 4, 4, 4, 4, 2, 2]

    play(scenario)


def test_one_of_eight_hangs_up_and_seven_are_answered() -> None:
    told = Told()

    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(is_open=False)
        blocker = await running(queue, work)
        tasks = await waiting(queue, work, range(1, 9))
        tasks[2].cancel()
        await until(lambda: queue.waiting(INTERACTIVE) == 7)
        work.gate.set()
        await blocker
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(2), asyncio.CancelledError)
        assert [a.value for a in answers if isinstance(a, Batched)] == [-1, -2, -4, -5, -6, -7, -8]
        assert work.sizes == [1, 7], "the row of the caller who left was never run"

    play(scenario, batcher(max_batch_size=8, told=told))
    assert told.left == 1
    assert told.rows == [1, 7]


@pytest.mark.parametrize("fault", ["poison", "short"])
def test_one_bad_row_fails_alone(fault: str) -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(is_open=False, **{fault: frozenset({3})})
        blocker = await running(queue, work, 99)
        tasks = await waiting(queue, work, range(8))
        work.gate.set()
        await blocker
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(3), ValueError if fault == "poison" else RuntimeError)
        assert [a.value for a in answers if isinstance(a, Batched)] == [0, -1, -2, -4, -5, -6, -7]

    play(scenario, batcher(max_batch_size=8))


def test_nobody_waits_beyond_their_deadline_also_when_a_run_hangs() -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(is_open=False)
        stuck = asyncio.create_task(ask(queue, work, 1, timeout_s=0.05))
        await until(lambda: queue.running_s > 0)
        with pytest.raises(DeadlineExceeded):
            await ask(queue, work, 2, timeout_s=0.05)
        with pytest.raises(DeadlineExceeded):
            await stuck
        work.gate.set()
        assert (await ask(queue, work, 3)).value == -3, "the executor lives on"

    play(scenario)


def test_a_run_that_hangs_makes_it_refuse_until_it_ends() -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(is_open=False)
        hanging = await running(queue, work)
        await until(lambda: queue.is_stuck)
        with pytest.raises(NotReady):
            await ask(queue, work, 1)
        work.gate.set()
        await hanging
        assert not queue.is_stuck
        assert (await ask(queue, work, 2)).value == -2

    play(scenario, batcher(hang_s=0.02))


def test_leaving_does_not_wait_for_a_run_that_hangs() -> None:
    work = Echo(is_open=False)

    async def scenario(queue: Batcher[int, int]) -> None:
        (await running(queue, work)).cancel()

    started_s = time.monotonic()
    play(scenario, batcher(hang_s=0.02))
    assert time.monotonic() - started_s < 10, "the run itself would have lasted 20 s"
    work.gate.set()


def test_a_full_house_refuses_at_once() -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(is_open=False)
        tasks = [await running(queue, work), *await waiting(queue, work, (1, 2))]
        with pytest.raises(Overloaded):
            await ask(queue, work, 3)
        work.gate.set()
        await asyncio.gather(*tasks)
        assert (await ask(queue, work, 4)).value == -4

    play(scenario, batcher(max_rows=3))


def test_leaving_answers_everyone_already_let_in() -> None:
    tasks: list[asyncio.Task[Batched[int]]] = []

    async def scenario() -> None:
        work = Echo(is_open=False)
        async with batcher() as queue:
            tasks.extend([await running(queue, work), *await waiting(queue, work, range(1, 9))])
            asyncio.get_running_loop().call_later(0.01, work.gate.set)
        with pytest.raises(Draining):
            await ask(queue, work, 99)
        answers = await asyncio.gather(*tasks)
        assert [answer.value for answer in answers] == [-value for value in range(9)]

    asyncio.run(scenario())


@settings(deadline=None)
@given(
    plan=st.lists(
        st.sampled_from(["submit", "poison", "short", "hurry", "cancel", "pause"]), min_size=1, max_size=60
    ),
    max_batch_size=st.integers(1, 7),
)
def test_every_caller_gets_exactly_their_own(plan: list[str], max_batch_size: int) -> None:
    """Whatever mix of faults, deadlines, hang-ups and pauses: own answer, own error, or own cancellation."""
    told = {step: frozenset(at for at, name in enumerate(plan) if name == step) for step in set(plan)}
    allowed: dict[type[BaseException], frozenset[int]] = {
        ValueError: told.get("poison", frozenset()),
        RuntimeError: told.get("short", frozenset()),
        DeadlineExceeded: told.get("hurry", frozenset()),
        Overloaded: told.get("hurry", frozenset()),
        asyncio.CancelledError: frozenset(range(len(plan))),
    }
    work = Echo(poison=allowed[ValueError], short=allowed[RuntimeError])

    async def scenario() -> list[tuple[int, Batched[int] | BaseException]]:
        tasks: dict[int, asyncio.Task[Batched[int]]] = {}
        async with batcher(max_batch_size=max_batch_size) as queue:
            for index, step in enumerate(plan):
                if step == "cancel" and tasks:
                    tasks[max(tasks)].cancel()
                elif step in ("cancel", "pause"):
                    await asyncio.sleep(0)
                else:
                    timeout_s = 0.0005 if step == "hurry" else 30
                    tasks[index] = asyncio.create_task(ask(queue, work, index, timeout_s=timeout_s))
            await asyncio.sleep(0)  # everyone has asked before the door closes
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert queue.open_rows == queue.open_bytes == 0
        return list(zip(tasks, results, strict=True))

    for index, result in asyncio.run(scenario()):
        if isinstance(result, Batched):
            assert result.value == -index
            assert index not in allowed[ValueError] | allowed[RuntimeError]
        else:
            assert index in allowed[type(result)]
    assert max(work.sizes, default=0) <= max_batch_size


async def ask_all(
    queue: Batcher[int, int], work: Echo, values: Sequence[int], *, timeout_s: float = 30.0
) -> list[Batched[int] | Exception]:
    with ExitStack() as places:
        tickets = [
            places.enter_context(
                queue.admit(work.costs, priority=INTERACTIVE, timeout_s=timeout_s, size_bytes=1)
            )
            for _ in values
        ]
        rows = [(ticket, value, 0.0) for ticket, value in zip(tickets, values, strict=True)]
        return await queue.submit_all(work, rows)


def test_rows_that_come_together_share_a_run() -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(poison=frozenset({3}))
        answers = await ask_all(queue, work, range(8))
        assert isinstance(answers.pop(3), ValueError)
        assert [a.value for a in answers if isinstance(a, Batched)] == [0, -1, -2, -4, -5, -6, -7]
        assert work.sizes[0] == 8
        assert await ask_all(queue, work, []) == []

    play(scenario, batcher(max_batch_size=8))


def test_rows_that_came_together_are_late_one_by_one() -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(is_open=False)
        answers = await ask_all(queue, work, (1, 2), timeout_s=0.05)
        assert [type(one) for one in answers] == [DeadlineExceeded, DeadlineExceeded]
        work.gate.set()
        assert (await ask(queue, work, 3)).value == -3, "nothing is left of them"

    play(scenario, batcher(max_batch_size=1))


class Body:
    """A value that can be watched. Negated, as every value here, it is nothing."""

    def __neg__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0


def test_a_row_that_left_is_not_held_while_a_run_hangs() -> None:
    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo(is_open=False)
        hanging = await running(queue, work)
        body: Any = Body()
        left = weakref.ref(body)
        late = asyncio.create_task(ask(queue, work, body, timeout_s=0.05))
        await asyncio.wait({late})
        assert isinstance(late.exception(), DeadlineExceeded)
        del body, late
        gc.collect()
        is_held = left() is not None
        work.gate.set()
        await hanging
        assert not is_held

    play(scenario)


def test_work_is_not_held_when_its_run_is_over() -> None:
    """It is a model, which an operator may have unloaded."""

    async def scenario(queue: Batcher[int, int]) -> None:
        work = Echo()
        ran = weakref.ref(work)
        await ask(queue, work, 1)
        del work
        await asyncio.sleep(0.05)
        gc.collect()
        assert ran() is None

    play(scenario)


def is_its_own(answer: Batched[int] | Exception, value: int, *, kind: str, is_poison: bool) -> bool:
    if isinstance(answer, Batched):
        return answer.value == -value and not is_poison
    if isinstance(answer, DeadlineExceeded):
        return kind == "hurry"
    return isinstance(answer, ValueError) and is_poison


@settings(deadline=None)
@given(
    packs=st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from(["stay", "stay", "leave", "hurry"])),
        min_size=1,
        max_size=9,
    ),
    poison=st.frozensets(st.integers(0, 80), max_size=9),
    max_batch_size=st.integers(1, 7),
)
def test_every_row_of_every_pack_gets_its_own(
    packs: list[tuple[int, str]], poison: frozenset[int], max_batch_size: int
) -> None:
    work = Echo(poison=poison)

    async def scenario() -> list[tuple[range, str, list[Batched[int] | Exception] | BaseException]]:
        tasks, values, first = [], [], 0
        async with batcher(max_batch_size=max_batch_size) as queue:
            for rows, kind in packs:
                values.append(range(first, first + rows))
                first += rows
                timeout_s = 0.0005 if kind == "hurry" else 30
                tasks.append(asyncio.create_task(ask_all(queue, work, values[-1], timeout_s=timeout_s)))
                await asyncio.sleep(0)
                if kind == "leave":
                    tasks[-1].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert queue.open_rows == queue.open_bytes == 0
        return list(zip(values, [kind for _, kind in packs], results, strict=True))

    for values, kind, answers in asyncio.run(scenario()):
        if isinstance(answers, BaseException):
            assert isinstance(answers, Overloaded if kind == "hurry" else asyncio.CancelledError)
            continue
        for value, answer in zip(values, answers, strict=True):
            assert is_its_own(answer, value, kind=kind, is_poison=value in poison)
    assert max(work.sizes, default=0) <= max_batch_size
