"""Whether an event loop still turns, seen from another thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_EVERY_S = 0.25


class Heartbeat:
    """Beats while its loop turns; a loop that waits for a long computation does not."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, on_beat: Callable[[], None] = lambda: None
    ) -> None:
        self._clock = clock
        self._on_beat = on_beat
        self._last_s = clock()

    @property
    def age_s(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._last_s

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._beat(), name="heartbeat")
        try:
            yield
        finally:
            task.cancel()

    async def _beat(self) -> None:
        while True:
            self._last_s = self._clock()
            self._on_beat()
            await asyncio.sleep(_EVERY_S)
