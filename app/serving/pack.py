"""Rows of one request: decoded in chunks, run in company, told in chunks; each of them fails alone.

One by one, handing rows from the event loop to threads and back costs as much as a small picture, and runs
are of whatever happens to be decoded. Rows of the batch class want throughput, so they are run when there are
as many as make a full run, or no more to come; interactive ones as soon as their chunk is decoded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from app.bundle.interpret import RowOutputs
from app.bundle.sample import RawInputs, Sample
from app.serving.batcher import Batched
from app.serving.engine import Answer, Engine, Place, Timings
from app.serving.errors import DeadlineExceeded
from app.serving.model import LiveModel
from app.serving.schedule import Priority

T = TypeVar("T")

_CHUNK_ROWS: Final = 8  # what a thread is given at once: an urgent row waits no longer than for these,
_CHUNK_BYTES: Final = 2**17  # of which large ones come alone


@dataclass(frozen=True, slots=True)
class _Decoded:
    sample: Sample
    decode_s: float


_Run = Batched[RowOutputs] | Exception


class Pack(Generic[T]):
    """Rows that are asked the same question. `tell` makes of a row's answer, or error, what its caller gets.

    It is called in a thread, with the row's place in the request.
    """

    def __init__(
        self,
        engine: Engine,
        model: LiveModel,
        *,
        top_k: int,
        explained: bool,
        tell: Callable[[int, Answer | Exception], T],
    ) -> None:
        self._engine = engine
        self._model = model
        self._top_k = top_k
        self._explained = explained
        self._tell = tell

    async def answers(self, rows: Sequence[tuple[Place, RawInputs]]) -> list[T]:
        """What is told of each row, in order. All rows are of one class, and have one deadline."""
        if not rows:
            return []
        engine, priority = self._engine, rows[0][0].priority
        chunk_rows = max(1, min(_CHUNK_ROWS, -(-len(rows) // engine.decoders.threads)))
        group_rows = engine.max_batch_size if priority is Priority.BATCH else chunk_rows
        for place, _ in rows:
            place.arrived()
        async with asyncio.TaskGroup() as tasks:
            groups = [
                tasks.create_task(self._group(rows[first : first + group_rows], first, chunk_rows))
                for first in range(0, len(rows), group_rows)
            ]
        return [told for group in groups for told in group.result()]

    async def _group(self, rows: Sequence[tuple[Place, RawInputs]], first: int, chunk_rows: int) -> list[T]:
        """Rows that are run together, if the batcher has room for all."""
        engine, priority = self._engine, rows[0][0].priority
        started_s = time.perf_counter()
        chunks = _chunks([raw for _, raw in rows], most=chunk_rows)
        try:
            async with rows[0][0].in_time():
                several = await asyncio.gather(
                    *(
                        engine.in_thread(self._decode, (chunk, started_s), priority=priority)
                        for chunk in chunks
                    )
                )
        except DeadlineExceeded as late:  # told at once, and not in a thread: those are what it waited for
            return [self._tell(first + place, late) for place in range(len(rows))]
        decoded = [one for chunk in several for one in chunk]
        wanted = [
            (place, one.sample)
            for (place, _), one in zip(rows, decoded, strict=True)
            if isinstance(one, _Decoded)
        ]
        ran = await engine.run_all(self._model, wanted)
        # What is done goes out before more is begun, whatever its class.
        return await engine.in_thread(self._told, (first, decoded, iter(ran)), priority=Priority.INTERACTIVE)

    def _decode(self, chunk: tuple[list[RawInputs], float]) -> list[_Decoded | Exception]:
        raws, started_s = chunk
        return [self._decoded(raw, started_s) for raw in raws]

    def _decoded(self, raw: RawInputs, started_s: float) -> _Decoded | Exception:
        try:
            sample = self._model.predictor.prepare(raw)
        except Exception as error:  # its own answer is the error
            return error
        if self._explained:
            sample = replace(sample, is_explained=True)
        return _Decoded(sample, time.perf_counter() - started_s)

    def _told(self, group: tuple[int, list[_Decoded | Exception], Iterator[_Run]]) -> list[T]:
        first, decoded, ran = group
        return [
            self._tell(
                first + place,
                self._answer(one, next(ran)) if isinstance(one, _Decoded) else one,
            )
            for place, one in enumerate(decoded)
        ]

    def _answer(self, one: _Decoded, run: _Run) -> Answer | Exception:
        if isinstance(run, Exception):
            return run
        sample = one.sample
        try:
            prediction = self._model.predictor.interpret(run.value, sample, top_k=self._top_k)
        except Exception as error:
            return error
        timings = Timings(one.decode_s, run.queue_s, run.run_s, prepare_s=sample.prepare_s)
        return Answer(prediction, run.value, sample.warnings, timings, run.batch_size)


def _chunks(raws: list[RawInputs], *, most: int) -> Iterator[list[RawInputs]]:
    chunk: list[RawInputs] = []
    size = 0
    for raw in raws:
        chunk.append(raw)
        size += sum(len(getattr(raw, name)) for name in raw.present)
        if len(chunk) >= most or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
