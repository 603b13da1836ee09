"""Who goes when, and that everyone gets their own answer or their own error, exactly once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.batcher import Batched, Batcher
from app.serving.errors import Draining, Overloaded


class Echo:
    """An executor that answers its inputs, remembers batch sizes, and runs only while its gate is open."""

    def __init__(self, *, poison: frozenset[int] = frozenset(), open_gate: bool = True) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self._poison = poison
        if open_gate:
            self.gate.set()

    def __call__(self, values: list[int]) -> Sequence[int]:
        assert self.gate.wait(10)
        self.sizes.append(len(values))
        if self._poison & set(values):
            raise ValueError("poison")
        return [-value for value in values]


def ignore(_size: int, _run_s: float) -> None: ...


def batcher(
    run: Callable[[list[int]], Sequence[int]], *, max_batch_size: int = 4, max_queue: int = 100
) -> Batcher[int, int]:
    return Batcher(run, max_batch_size=max_batch_size, max_queue=max_queue, on_batch=ignore)


async def all_waiting(queue: Batcher[int, int], count: int) -> None:
    while queue.depth < count:  # noqa: ASYNC110 - the batcher has no business telling tests
        await asyncio.sleep(0)


def test_a_lone_request_does_not_wait_for_company() -> None:
    async def scenario() -> Batched[int]:
        async with batcher(Echo()) as queue:
            return await queue.submit(7)

    answer = asyncio.run(scenario())
    assert (answer.value, answer.batch_size) == (-7, 1)


def test_what_waits_while_the_executor_runs_becomes_the_next_batch() -> None:
    echo = Echo(open_gate=False)

    async def scenario() -> list[Batched[int]]:
        async with batcher(echo) as queue:
            first = asyncio.create_task(queue.submit(0))
            await asyncio.sleep(0.01)  # it is running now
            rest = [asyncio.create_task(queue.submit(value)) for value in range(1, 7)]
            await all_waiting(queue, 6)
            echo.gate.set()
            return await asyncio.gather(first, *rest)

    answers = asyncio.run(scenario())
    assert echo.sizes == [1, 4, 2]
    assert [answer.value for answer in answers] == [0, -1, -2, -3, -4, -5, -6]
    assert [answer.batch_size for answer in answers] == [1, 4, 4, 4, 4, 2, 2]


def test_hanging_up_does_not_shift_the_answers() -> None:
    echo = Echo(open_gate=False)

    async def scenario() -> list[Batched[int] | BaseException]:
        async with batcher(echo, max_batch_size=8) as queue:
            blocker = asyncio.create_task(queue.submit(0))
            await asyncio.sleep(0.01)
            tasks = [asyncio.create_task(queue.submit(value)) for value in range(1, 9)]
            await all_waiting(queue, 8)
            tasks[2].cancel()
            await asyncio.sleep(0)
            echo.gate.set()
            await blocker
            return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(scenario())
    assert isinstance(answers.pop(2), asyncio.CancelledError)
    assert [a.value for a in answers if isinstance(a, Batched)] == [-1, -2, -4, -5, -6, -7, -8]
    assert echo.sizes == [1, 7], "the row of the caller who left was never run"


def test_one_bad_row_fails_alone() -> None:
    echo = Echo(poison=frozenset({3}), open_gate=False)

    async def scenario() -> list[Batched[int] | BaseException]:
        async with batcher(echo, max_batch_size=8) as queue:
            tasks = [asyncio.create_task(queue.submit(value)) for value in range(8)]
            await all_waiting(queue, 8)
            echo.gate.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(scenario())
    assert isinstance(answers.pop(3), ValueError)
    assert [a.value for a in answers if isinstance(a, Batched)] == [0, -1, -2, -4, -5, -6, -7]


def test_a_short_answer_is_an_error_and_not_a_hang() -> None:
    async def scenario() -> None:
        async with batcher(lambda values: values[:-1]) as queue:
            await queue.submit(1)

    with pytest.raises(RuntimeError, match="1 values went in, 0 came out"):
        asyncio.run(scenario())


def test_a_full_queue_refuses_at_once() -> None:
    echo = Echo(open_gate=False)

    async def scenario() -> None:
        async with batcher(echo, max_queue=2) as queue:
            running = asyncio.create_task(queue.submit(0))
            await asyncio.sleep(0.01)
            waiting = [asyncio.create_task(queue.submit(value)) for value in (1, 2)]
            await all_waiting(queue, 2)
            with pytest.raises(Overloaded):
                await queue.submit(3)
            echo.gate.set()
            await asyncio.gather(running, *waiting)

    asyncio.run(scenario())


def test_leaving_answers_everyone_already_let_in() -> None:
    echo = Echo(open_gate=False)

    async def scenario() -> list[Batched[int]]:
        async with batcher(echo) as queue:
            tasks = [asyncio.create_task(queue.submit(value)) for value in range(9)]
            await all_waiting(queue, 9)
            asyncio.get_running_loop().call_later(0.01, echo.gate.set)
        with pytest.raises(Draining):
            await queue.submit(99)
        return await asyncio.gather(*tasks)

    assert [answer.value for answer in asyncio.run(scenario())] == [-value for value in range(9)]


@settings(deadline=None)
@given(
    plan=st.lists(st.sampled_from(["submit", "poison", "cancel", "pause"]), min_size=1, max_size=60),
    max_batch_size=st.integers(1, 7),
)
def test_every_caller_gets_exactly_their_own(plan: list[str], max_batch_size: int) -> None:
    """Whatever mix of bad rows, hang-ups and pauses: own answer, own error, or own cancellation."""
    poison = frozenset(index for index, step in enumerate(plan) if step == "poison")
    echo = Echo(poison=poison)

    async def scenario() -> list[tuple[int, Batched[int] | BaseException]]:
        tasks: dict[int, asyncio.Task[Batched[int]]] = {}
        async with batcher(echo, max_batch_size=max_batch_size) as queue:
            for index, step in enumerate(plan):
                if step in ("submit", "poison"):
                    tasks[index] = asyncio.create_task(queue.submit(index))
                elif step == "cancel" and tasks:
                    tasks[max(tasks)].cancel()
                else:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)  # everyone has queued up before the door closes
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        return list(zip(tasks, results, strict=True))

    for index, result in asyncio.run(scenario()):
        if isinstance(result, Batched):
            assert result.value == -index
            assert index not in poison
        elif not isinstance(result, asyncio.CancelledError):
            assert isinstance(result, ValueError)
            assert index in poison
    assert max(echo.sizes, default=0) <= max_batch_size
