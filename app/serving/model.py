"""A live model: one bundle, open on its device, with a queue in front of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Self

from app.bundle.interpret import Prediction, RowOutputs
from app.bundle.manifest import Manifest
from app.bundle.sample import InputWarning, RawInputs, Sample
from app.runtime.predictor import Predictor
from app.serving.batcher import Batcher


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a row's time went, in seconds."""

    decode_s: float
    queue_s: float
    run_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    prediction: Prediction
    warnings: tuple[InputWarning, ...]
    timings: Timings
    batch_size: int


class LiveModel:
    """Answers raw rows: decoded in `pool`, run in batches, interpreted.

    Used as an async context manager; leaving it answers everyone already let in.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        pool: Executor,
        max_batch_size: int,
        max_queue: int,
        on_batch: Callable[[int, float], None],
    ) -> None:
        self._predictor = predictor
        self._pool = pool
        self._batcher: Batcher[Sample, RowOutputs] = Batcher(
            predictor.run, max_batch_size=max_batch_size, max_queue=max_queue, on_batch=on_batch
        )

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        return self

    async def __aexit__(self, *exit_info: object) -> None:
        await self._batcher.__aexit__(*exit_info)

    @property
    def manifest(self) -> Manifest:
        return self._predictor.manifest

    @property
    def device(self) -> str:
        return str(self._predictor.device)

    @property
    def waiting(self) -> int:
        return self._batcher.depth

    async def answer(self, raw: RawInputs, *, top_k: int) -> Answer:
        """Raises InputError, ServingError or NonFiniteOutput."""
        started_s = time.perf_counter()
        sample = await asyncio.get_running_loop().run_in_executor(self._pool, self._predictor.prepare, raw)
        decode_s = time.perf_counter() - started_s
        batched = await self._batcher.submit(sample)
        prediction = self._predictor.interpret(batched.value, sample, top_k=top_k)
        timings = Timings(decode_s=decode_s, queue_s=batched.queue_s, run_s=batched.run_s)
        return Answer(prediction, sample.warnings, timings, batched.batch_size)
