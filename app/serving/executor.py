"""One thread that runs one call at a time for an event loop.

A daemon, unlike a pool's threads: a call that never returns cannot keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Executor:
    """Starts its thread with the first call."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="executor", daemon=True)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Wait for `function(*arguments)`, or raise what it raised."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            if result.done():
                return
            if error is None:
                result.set_result(value)  # type: ignore[arg-type]
            else:
                result.set_exception(error)

        def run() -> None:
            value, error = None, None
            try:
                value = function(*arguments)
            except BaseException as raised:  # noqa: BLE001 - whoever waits gets it
                error = raised
            with suppress(RuntimeError):  # the loop may be closed by the time a hanging call returns
                loop.call_soon_threadsafe(settle, value, error)

        if not self._thread.is_alive():
            self._thread.start()
        self._calls.put(run)
        return await result

    def close(self) -> None:
        """End the thread after the present call."""
        self._calls.put(None)

    def _work(self) -> None:
        while (run := self._calls.get()) is not None:
            run()
            del run  # and with it what it ran: an unloaded model must not live until the next call
