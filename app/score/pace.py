"""How fast to ask: rows per second, requests at once, and how long to wait before asking again.

Clocks and chance are handed in, so that tests need neither time nor luck.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

Clock = Callable[[], float]


@dataclass(slots=True)
class Rate:
    """Rows per second, with bursts of a tenth of a second's worth."""

    per_second: float
    clock: Clock = time.monotonic
    _next_s: float = field(default=float("-inf"), init=False)

    def wait_s(self) -> float:
        """Take one row's turn: seconds to wait for it."""
        now_s = self.clock()
        self._next_s = max(self._next_s, now_s - 0.1) + 1 / self.per_second
        return max(0.0, self._next_s - now_s)


_SLOWED: Final = 2.0  # no more requests at once while one takes this many times the quickest seen lately
_FORGET: Final = 0.02  # how fast the quickest is forgotten, for each answer: after 50 it counts for a third


@dataclass(slots=True)
class Limit:
    """How many requests are on the way at once: one more for each round of answers, half when refused.

    Slow start, additive increase, multiplicative decrease, as TCP has it (RFC 5681); all refusals of requests
    that were on the way when the limit was halved count as one. It also stays while answers are slow.
    """

    most: int
    clock: Clock = time.monotonic
    value: float = 4.0
    is_starting: bool = True  # twice as many each round, until the first refusal or slow answer
    _quickest_s: float = field(default=float("inf"), init=False)
    _halved_s: float = field(default=float("-inf"), init=False)

    @property
    def now(self) -> int:
        return max(1, min(self.most, int(self.value)))

    def answered(self, seconds: float) -> None:
        """A request was answered in so many seconds."""
        slower_s = self._quickest_s * (1 + _FORGET) if self._quickest_s < float("inf") else seconds
        self._quickest_s = min(seconds, slower_s)
        if seconds > _SLOWED * self._quickest_s:
            self.is_starting = False
            return
        step = 1.0 if self.is_starting else 1 / max(1.0, self.value)
        self.value = min(self.most, self.value + step)

    def refused(self, *, began_s: float) -> None:
        """A request that began then was told that there is too much."""
        self.is_starting = False
        if began_s >= self._halved_s:
            self.value = max(1.0, self.value / 2)
            self._halved_s = self.clock()


_LARGER: Final = 32  # answers in a row, until a request may be twice as large again


@dataclass(slots=True)
class Size:
    """How many rows a request has: fewer where one alone is too much for the server, then slowly more."""

    most: int
    now: int = field(init=False)
    _answers: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.now = self.most

    def answered(self, rows: int) -> None:
        """A request of so many rows was answered."""
        self._answers += rows >= self.now
        if self._answers >= _LARGER:
            self._answers = 0
            self.now = min(self.most, 2 * self.now)

    def lower(self, rows: int) -> None:
        """No more than so many, for now."""
        self.now = max(1, min(self.now, rows))
        self._answers = 0

    def bound(self, rows: int) -> None:
        """Never more than so many."""
        self.most = max(1, min(self.most, rows))
        self.lower(rows)


class Gate:
    """Lets as many in as the limit says."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.inside = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: self.inside < self.limit.now)
            self.inside += 1
        try:
            yield
        finally:
            async with self._changed:
                self.inside -= 1
                self._changed.notify_all()


def pause_s(
    attempt: int, *, retry_after_s: float | None = None, chance: Callable[[], float] = random.random
) -> float:
    """How long to wait after the attempt of this number, from 1: full jitter under a doubling bound of 10 s.

    After what the server asked for, if it did: everyone that it sent away would else come back at once.
    """
    bound_s = min(10.0, 0.1 * 2.0 ** min(attempt, 10))
    return (retry_after_s or 0.0) + chance() * bound_s
