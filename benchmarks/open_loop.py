"""An open-loop load: requests leave at random times, whatever the answers do.

A closed loop slows down with the server and so hides the queue; this one does not.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.bundle.sample import RawInputs
from benchmarks.load import Connection, encode, is_same


@dataclass(slots=True)
class Offered:
    """What became of the requests. `late` are right answers beyond the deadline."""

    seconds: float = 0.0
    answered_s: list[float] = field(default_factory=list)
    refusals_s: list[float] = field(default_factory=list)
    late: int = 0
    wrong: int = 0
    other: int = 0

    @property
    def goodput(self) -> float:
        """Right answers in time, per second."""
        return (len(self.answered_s) - self.late) / self.seconds

    @property
    def refused(self) -> int:
        return len(self.refusals_s)

    def accepted_s(self, quantile: float) -> float:
        return _quantile(self.answered_s, quantile)

    def refused_s(self, quantile: float) -> float:
        return _quantile(self.refusals_s, quantile)


def _quantile(values: list[float], quantile: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)] if ordered else 0.0


async def offer(
    port: int, rows: Sequence[RawInputs], *, rate: float, seconds: float, deadline_ms: int, seed: int = 0
) -> Offered:
    """Send `rate` requests a second for `seconds`, with Poisson arrivals, and wait for all to end."""
    chance = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    requests = [encode(row, host="127.0.0.1", deadline_ms=deadline_ms) for row in rows]
    expected = [await _alone(port, encode(row, host="127.0.0.1")) for row in rows]
    pool: list[Connection] = []
    result = Offered()
    started_s = time.perf_counter()
    next_s = 0.0
    async with asyncio.TaskGroup() as tasks:
        while next_s < seconds:
            await asyncio.sleep(max(0.0, started_s + next_s - time.perf_counter()))
            index = chance.randrange(len(rows))
            tasks.create_task(_one(port, pool, requests[index], expected[index], result, deadline_ms / 1000))
            next_s += chance.expovariate(rate)
    result.seconds = time.perf_counter() - started_s
    for connection in pool:
        await connection.__aexit__()
    return result


async def _alone(port: int, request: bytes) -> dict[str, object]:
    async with await Connection.open(port) as connection:
        return (await connection.ask(request))[1]


async def _one(
    port: int,
    pool: list[Connection],
    request: bytes,
    expected: dict[str, object],
    result: Offered,
    deadline_s: float,
) -> None:
    """Use an idle connection or a new one, and give it back."""
    started_s = time.perf_counter()
    try:
        connection, (status, answer, headers) = await _asked(port, pool, request)
    except (OSError, asyncio.IncompleteReadError, json.JSONDecodeError):
        result.other += 1
        return
    took_s = time.perf_counter() - started_s
    pool.append(connection)
    if status == 200:
        result.answered_s.append(took_s)
        result.late += took_s > deadline_s
        result.wrong += not is_same(answer, expected)
    elif status == 503 and b"retry-after" in headers.lower():
        result.refusals_s.append(took_s)
    else:
        result.other += 1


async def _asked(
    port: int, pool: list[Connection], request: bytes
) -> tuple[Connection, tuple[int, dict[str, object], bytes]]:
    """As HTTP clients do: anew, where the server ended an idle connection just now (RFC 9112, 9.3.1)."""
    while pool:
        if (idle := pool.pop()).is_closed:
            continue
        try:
            return idle, await idle.ask_all(request)
        except ConnectionResetError:
            break
        except asyncio.IncompleteReadError as cut:
            if cut.partial:
                raise
            break
    fresh = await Connection.open(port)
    return fresh, await fresh.ask_all(request)
