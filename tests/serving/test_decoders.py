"""Threads that decode: everyone gets their own result, and the urgent ones first."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.decoders import Decoders
from app.serving.schedule import BATCH_SHARE, Priority

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


@settings(deadline=None, max_examples=20)
@given(urgent_s=st.floats(0.001, 0.1), patient_s=st.floats(0.001, 0.1))
def test_what_can_wait_has_its_share_of_the_time(urgent_s: float, patient_s: float) -> None:
    """While both wait; neither more nor less than by one call."""
    now_s = 0.0
    spent_s = dict.fromkeys(Priority, 0.0)
    ahead_s: list[float] = []  # of its share

    def take(priority: Priority) -> None:
        nonlocal now_s
        took_s = urgent_s if priority is URGENT else patient_s
        now_s += took_s
        spent_s[priority] += took_s
        ahead_s.append(spent_s[PATIENT] - owed_s(spent_s[URGENT]))

    async def run() -> None:
        pool = Decoders(1, clock=lambda: now_s)
        gate = threading.Event()
        held = asyncio.create_task(pool.call(gate.wait, 20, priority=URGENT))
        tasks = [
            asyncio.create_task(pool.call(take, priority, priority=priority))
            for priority in Priority
            for _ in range(200)
        ]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(held, *tasks)
        pool.close()

    asyncio.run(run())
    both = ahead_s[:100]  # of 400: neither class is through by then
    assert all(-owed_s(urgent_s) - patient_s - 1e-9 <= gap_s <= patient_s + 1e-9 for gap_s in both)


def owed_s(urgent_s: float) -> float:
    return urgent_s * BATCH_SHARE / (1 - BATCH_SHARE)


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


def test_a_call_that_does_not_end_does_not_keep_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


HANGS = """
import asyncio, time
from app.serving.decoders import Decoders
from app.serving.schedule import Priority

async def run():
    pool = Decoders(1)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_):
        loop.call_soon_threadsafe(begun.set)
        time.sleep(60)

    calls = [asyncio.create_task(pool.call(hang, None, priority=who)) for who in Priority]
    await begun.wait()
    for call in calls:
        call.cancel()
    pool.close()

asyncio.run(run())
"""
