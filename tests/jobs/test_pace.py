"""How rows of jobs make way for interactive ones."""

from __future__ import annotations

import asyncio
import math

from app.jobs.pace import Pace


class Traffic:
    """Interactive rows, as a test wants them."""

    def __init__(self, *, quiet_s: float) -> None:
        self.quiet = asyncio.Event()
        self.quiet_s = quiet_s


async def most_at_once(pace: Pace, rows: int) -> int:
    inside = most = 0

    async def row() -> None:
        nonlocal inside, most
        async with pace.row():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(row() for _ in range(rows)))
    return most


def test_where_nobody_asks_rows_do_not_wait_for_each_other() -> None:
    async def run() -> int:
        return await most_at_once(Pace(Traffic(quiet_s=math.inf)), 8)

    assert asyncio.run(run()) == 8


def test_beside_interactive_rows_there_is_one_at_a_time() -> None:
    async def run() -> int:
        traffic = Traffic(quiet_s=0)
        traffic.quiet.set()  # a gap
        return await most_at_once(Pace(traffic), 8)

    assert asyncio.run(run()) == 1


def test_interactive_rows_without_end_do_not_stop_a_job() -> None:
    async def run() -> int:
        return await most_at_once(Pace(Traffic(quiet_s=0)), 3)

    assert asyncio.run(asyncio.wait_for(run(), 10)) == 1


def test_a_row_rests_as_long_as_it_took() -> None:
    ticks = iter([0.0, 0.05, 1.0, 1.05])
    slept: list[float] = []

    async def run() -> None:
        traffic = Traffic(quiet_s=0)
        traffic.quiet.set()
        pace = Pace(traffic, clock=lambda: next(ticks))
        loop = asyncio.get_running_loop()
        for _ in range(2):
            began_s = loop.time()
            async with pace.row():
                pass
            slept.append(loop.time() - began_s)

    asyncio.run(run())
    assert all(seconds >= 0.049 for seconds in slept)
