"""How fast the rows of jobs may go, so that interactive requests hardly notice them.

Where nobody asks, as fast as the engine takes them. While somebody does, one row at a time, begun when no
interactive one is in, and after each a rest: the executor is not all that they share. Interactive requests
without end do not stop a job: a row waits for a gap only so long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

_CALM_S: Final = 1.0  # without an interactive row: nobody is there
_GAP_S: Final = 0.2  # the longest wait for a gap
_REST: Final = 1.0  # as long as the row took
_MOST_REST_S: Final = 0.2


class Traffic(Protocol):
    """What is known of interactive rows; the engine's batcher is one."""

    @property
    def quiet(self) -> asyncio.Event: ...

    @property
    def quiet_s(self) -> float: ...


class Pace:
    """Shared by all rows of one process."""

    def __init__(self, traffic: Traffic, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._traffic = traffic
        self._clock = clock
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def row(self) -> AsyncIterator[None]:
        """Wait until a row may be begun; the block is its time."""
        if self._traffic.quiet_s >= _CALM_S:
            yield
            return
        async with self._turn:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._traffic.quiet.wait(), _GAP_S)
            started_s = self._clock()
            yield
            await asyncio.sleep(min(_REST * (self._clock() - started_s), _MOST_REST_S))
