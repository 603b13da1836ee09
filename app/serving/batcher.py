"""Inputs in, answers out: whatever waits when the executor is free becomes the next batch.

Work-conserving: nothing waits for company while the executor idles, so a lone request pays no delay and
batches grow by themselves under load. An input and its reply are one object from admission to answer,
so an answer cannot reach the wrong caller. Knows no model and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from app.serving.errors import Draining, Overloaded

log = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Batched(Generic[Out]):
    """An answer and what it took."""

    value: Out
    queue_s: float
    run_s: float
    batch_size: int


@dataclass(slots=True)
class _Waiting(Generic[In, Out]):
    value: In
    reply: asyncio.Future[Batched[Out]]
    since_s: float


class Batcher(Generic[In, Out]):
    """Calls `run` with one batch at a time, in a thread of its own.

    `run` takes up to `max_batch_size` values and returns as many results, in order. If it raises, the
    batch is split until the value at fault is alone: that caller gets the error, the others their answer.
    `on_batch` is told the size and the seconds of every run that answered.
    """

    def __init__(
        self,
        run: Callable[[list[In]], Sequence[Out]],
        *,
        max_batch_size: int,
        max_queue: int,
        on_batch: Callable[[int, float], None],
    ) -> None:
        self._run = run
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._on_batch = on_batch
        self._queue: deque[_Waiting[In, Out]] = deque()
        self._arrival = asyncio.Event()
        self._draining = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="executor")
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._serve(), name="batcher")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Refuse new work, answer what is queued, stop."""
        self._draining = True
        self._arrival.set()
        assert self._loop is not None, "left without being entered"
        await self._loop
        self._executor.shutdown()

    @property
    def depth(self) -> int:
        """How many wait for the next batch."""
        return len(self._queue)

    async def submit(self, value: In) -> Batched[Out]:
        """Wait for the answer to one value. Raises Overloaded, Draining, or what `run` raised for it."""
        if self._draining:
            raise Draining("The server is stopping. Send the request to another one.")
        if len(self._queue) >= self._max_queue:
            raise Overloaded("Too many requests are waiting. Try again later.")
        reply: asyncio.Future[Batched[Out]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(value, reply, time.perf_counter()))
        self._arrival.set()
        return await reply

    async def _serve(self) -> None:
        while not self._draining or self._queue:
            if batch := self._take():
                await self._answer(batch)
            else:
                self._arrival.clear()
                if not self._draining:
                    await self._arrival.wait()

    def _take(self) -> list[_Waiting[In, Out]]:
        """The oldest that still have someone waiting for them."""
        batch: list[_Waiting[In, Out]] = []
        while self._queue and len(batch) < self._max_batch_size:
            waiting = self._queue.popleft()
            if not waiting.reply.done():  # done means that its caller hung up
                batch.append(waiting)
        return batch

    async def _answer(self, batch: list[_Waiting[In, Out]]) -> None:
        started_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._call, [w.value for w in batch])
        except Exception as error:
            if len(batch) > 1:
                await self._answer(batch[: len(batch) // 2])
                await self._answer(batch[len(batch) // 2 :])
                return
            log.exception("one row made the model fail")
            if not batch[0].reply.done():
                batch[0].reply.set_exception(error)
            return
        run_s = time.perf_counter() - started_s
        self._on_batch(len(batch), run_s)
        for waiting, value in zip(batch, results, strict=True):
            if not waiting.reply.done():  # its caller may have hung up meanwhile
                waiting.reply.set_result(Batched(value, started_s - waiting.since_s, run_s, len(batch)))

    def _call(self, values: list[In]) -> Sequence[Out]:
        results = self._run(values)
        if len(results) != len(values):
            raise RuntimeError(f"{len(values)} values went in, {len(results)} came out")
        return results
