"""Threads that decode: what is urgent overtakes what can wait, as it does in front of the executor."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from app.serving.schedule import Priority

T = TypeVar("T")
U = TypeVar("U")


class Decoders:
    """A pool with a queue for each class, the interactive one first."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._waiting: dict[Priority, deque[tuple[Future[Any], Callable[[Any], Any], Any]]] = {
            Priority.INTERACTIVE: deque(),
            Priority.BATCH: deque(),
        }
        self._lock = threading.Lock()

    async def call(self, function: Callable[[T], U], argument: T, *, priority: Priority) -> U:
        """Wait for `function(argument)`, or raise what it raised."""
        done: Future[U] = Future()
        with self._lock:
            self._waiting[priority].append((done, function, argument))
        self._pool.submit(self._next)
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """End the threads after the calls that wait."""
        self._pool.shutdown()

    def _next(self) -> None:
        """The most urgent call that waits: each one that came has brought a turn."""
        with self._lock:
            done, function, argument = next(filter(None, self._waiting.values())).popleft()
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(function(argument))
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            done.set_exception(error)
