"""Threads that decode: everyone gets their own result, and the urgent ones first."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.decoders import Decoders
from app.serving.schedule import Priority

URGENT, PATIENT = Priority.INTERACTIVE, Priority.BATCH


def test_urgent_calls_overtake_those_that_can_wait() -> None:
    begun = threading.Event()
    gate = threading.Event()
    order: list[int] = []

    def hold(_: None) -> None:
        begun.set()
        gate.wait(20)

    async def run() -> None:
        pool = Decoders(1)
        first = asyncio.create_task(pool.call(hold, None, priority=PATIENT))
        await asyncio.to_thread(begun.wait, 20)
        wanted = [(1, PATIENT), (2, PATIENT), (3, URGENT), (4, URGENT)]
        rest = [asyncio.create_task(pool.call(order.append, n, priority=who)) for n, who in wanted]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *rest)
        pool.close()

    asyncio.run(run())
    assert order == [3, 4, 1, 2]


def answered(number: int) -> int:
    if number % 5 == 4:
        raise ValueError(number)
    return -number


@settings(deadline=None)
@given(
    plan=st.lists(st.tuples(st.sampled_from(Priority), st.booleans()), max_size=40), threads=st.integers(1, 4)
)
def test_whoever_stays_gets_their_own_result(plan: list[tuple[Priority, bool]], threads: int) -> None:
    async def run() -> list[int | BaseException]:
        pool = Decoders(threads)
        tasks = []
        for number, (priority, stays) in enumerate(plan):
            tasks.append(asyncio.create_task(pool.call(answered, number, priority=priority)))
            await asyncio.sleep(0)
            if not stays:
                tasks[-1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        pool.close()
        return results

    for number, (result, (_, stays)) in enumerate(zip(asyncio.run(run()), plan, strict=True)):
        if isinstance(result, asyncio.CancelledError):
            assert not stays
        elif isinstance(result, BaseException):
            assert result.args == (number,)
            assert number % 5 == 4
        else:
            assert result == -number
