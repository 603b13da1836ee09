"""Overload: is what can be answered in time answered, and is the rest refused at once?

    python -m benchmarks.overload [--seconds S] [--deadline-ms D]

Measures the capacity of a model-bound server in a closed loop, then offers one, two and four times as
much in an open loop (Poisson arrivals, each with a deadline), then half, to see it recover. Goodput
counts right answers within the deadline. Prints a table, and fails if a promise is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from app.bundle.sample import RawInputs
from benchmarks.heavy import write_heavy
from benchmarks.load import run_load
from benchmarks.open_loop import Offered, offer
from tests import tiny
from tests.server import serving


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--deadline-ms", type=int, default=1000)
    given = parser.parse_args()
    rows = [tiny.row(seed, ("image",)) for seed in range(40)]
    with tempfile.TemporaryDirectory() as scratch:
        write_heavy(Path(scratch))
        # One core for the model, the other for the event loop and for the client beside it.
        with serving(Path(scratch), threads=1, log_level="warning") as server:
            broken = asyncio.run(_measure(server.port, rows, given.seconds, given.deadline_ms))
    sys.exit(1 if broken else 0)


async def _measure(port: int, rows: list[RawInputs], seconds: float, deadline_ms: int) -> list[str]:
    capacity = (await run_load(port, rows, connections=32, seconds=seconds / 2)).rows_per_second
    print(f"capacity {capacity:.0f} rows/s, deadline {deadline_ms} ms")
    print("offered   goodput/capacity   p99 of accepted   refused   late   wrong   other   p99 refusal")
    broken: list[str] = []
    for load in (1, 2, 4):
        result = await offer(port, rows, rate=load * capacity, seconds=seconds, deadline_ms=deadline_ms)
        _show(f"{load}x", result, capacity)
        if load > 1:
            broken += _broken(load, result, capacity, deadline_ms)
    recovery_s = await _recovery_s(port, rows, capacity, deadline_ms)
    print(f"back to normal after {recovery_s:.1f} s")
    broken += ["recovery takes more than 5 s"] if recovery_s > 5 else []
    print("; ".join(broken) or "all promises kept")
    return broken


def _show(name: str, result: Offered, capacity: float) -> None:
    print(
        f"{name:>7} {result.goodput / capacity:14.0%} {result.accepted_s(0.99) * 1000:15.0f} ms "
        f"{result.refused:9} {result.late:6} {result.wrong:7} {result.other:7} "
        f"{result.refused_s(0.99) * 1000:10.0f} ms"
    )


def _broken(load: int, result: Offered, capacity: float, deadline_ms: int) -> list[str]:
    promises = {
        "goodput is below 90 % of capacity": result.goodput >= 0.9 * capacity,
        "p99 of accepted rows is beyond the deadline": result.accepted_s(0.99) * 1000 <= deadline_ms,
        "something else than an answer or a 503 with Retry-After came": result.other == 0,
        "an answer was wrong": result.wrong == 0,
    }
    return [f"{load}x: {promise}" for promise, is_kept in promises.items() if not is_kept]


async def _recovery_s(port: int, rows: list[RawInputs], capacity: float, deadline_ms: int) -> float:
    """After the overload ends: until a second passes in which everything is answered."""
    started_s = time.perf_counter()
    for _ in range(15):
        result = await offer(port, rows, rate=capacity / 2, seconds=1.0, deadline_ms=deadline_ms)
        if result.refused == result.late == result.other == 0:
            return max(0.0, time.perf_counter() - started_s - 1.0)
    return float("inf")


if __name__ == "__main__":
    main()
