"""Threads that decode: what is urgent overtakes what can wait, as it does in front of the executor.

And as there, what can wait is owed its share however much is urgent: here of the threads' time. And as there
they are daemons, unlike a pool's threads: a call that takes minutes does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from app.serving.schedule import BATCH_SHARE, Priority

T = TypeVar("T")
U = TypeVar("U")

_OWED: Final = BATCH_SHARE / (1 - BATCH_SHARE)  # of each second that urgent calls took


class Decoders:
    """A pool with a queue for each class. Its threads start with the first call."""

    def __init__(self, threads: int, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.threads = threads
        self._clock = clock
        self._turns: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._pool: list[threading.Thread] = []
        self._urgent: deque[_Call] = deque()
        self._patient: deque[_Call] = deque()
        self._owed_s = 0.0  # to patient calls; below 0 if they had more
        self._patient_s = 0.0  # what the last of them took, and so the next will
        self._lock = threading.Lock()

    async def call(self, function: Callable[[T], U], argument: T, *, priority: Priority) -> U:
        """Wait for `function(argument)`, or raise what it raised."""
        done: Future[U] = Future()
        calls = self._urgent if priority is Priority.INTERACTIVE else self._patient
        with self._lock:
            calls.append((done, function, argument))
            if not self._pool:
                self._start()
        self._turns.put(self._next)
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """End the threads after the calls that wait. Waits for none of them."""
        for _ in self._pool:
            self._turns.put(None)

    def _start(self) -> None:
        self._pool = [
            threading.Thread(target=self._work, name=f"decode-{number}", daemon=True)
            for number in range(self.threads)
        ]
        for thread in self._pool:
            thread.start()

    def _work(self) -> None:
        while (turn := self._turns.get()) is not None:
            turn()

    def _next(self) -> None:
        """One of the calls that wait: each that came has brought a turn."""
        with self._lock:
            is_before = bool(self._urgent and self._patient) and self._owed_s > self._patient_s
            is_urgent = bool(self._urgent) and not is_before
            done, function, argument = (self._urgent if is_urgent else self._patient).popleft()
            spent_s = self._patient_s if is_before else 0.0
            self._owed_s -= spent_s  # at once: other threads look at it, too
        started_s = self._clock()
        if done.set_running_or_notify_cancel():
            _settle(done, function, argument)
        took_s = self._clock() - started_s
        with self._lock:
            if is_urgent:
                self._owed_s += _OWED * took_s
            else:
                self._patient_s = took_s
                self._owed_s -= took_s - spent_s if is_before else 0.0
            if not self._patient:
                self._owed_s = min(self._owed_s, 0.0)  # who does not wait saves nothing up


_Call = tuple[Future[Any], Callable[[Any], Any], Any]


def _settle(done: Future[U], function: Callable[[T], U], argument: T) -> None:
    try:
        result = function(argument)
    except BaseException as error:  # noqa: BLE001 - whoever waits gets it
        done.set_exception(error)
    else:
        done.set_result(result)
