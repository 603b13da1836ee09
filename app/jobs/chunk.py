"""What becomes of a job's chunk: its rows through the engine like those of a stream, as class batch.

Few at once: what an interactive request may find before it is one short run.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from app.bundle.errors import InputError
from app.bundle.sample import RawInputs
from app.jobs.errors import JobsError
from app.jobs.job import Claim, Job, Outcome, Wanted
from app.jobs.jobs import Jobs
from app.jobs.pace import Pace
from app.jobs.spool import read_lines, rows_of, singly
from app.jobs.store import Store
from app.rows.errors import Unreadable
from app.rows.letters import Stage, dead_letter
from app.rows.records import json_bytes
from app.rows.row import Row
from app.runtime.errors import NonFiniteOutput
from app.serving.engine import Answer, Engine
from app.serving.errors import DeadlineExceeded, Draining, ModelNotFound, NotReady, Overloaded
from app.serving.model import LiveModel
from app.serving.repository import Repository
from app.serving.schedule import Priority

log = logging.getLogger(__name__)

_RUN_S: Final = 0.008  # what rows of jobs may make of one run, and so what an interactive row waits for
_MOST_AT_ONCE: Final = 16
_ROW_S: Final = 60.0  # from its place to its answer; then it is tried again
_ROW_TRIES: Final = 3
_CHUNK_TRIES: Final = 3  # of which none came to an end: then its rows are taken one by one, once each
_AGAIN_S: Final = 1.0  # after there was no place

Describe = Callable[[Answer, LiveModel, Row, float], str]
"""A result's line of JSON, of the row that was begun at a time of perf_counter."""


class JobFailed(Exception):
    """The job as a whole cannot go on."""


@dataclass(frozen=True, slots=True)
class _Letter:
    """Why a row has no answer."""

    stage: Stage
    code: str
    reason: str
    attempts: int = 1


class Answering:
    """Chunks to outcomes, by the models of this process. `answered` is told of each answer."""

    def __init__(
        self,
        jobs: Jobs,
        engine: Engine,
        repository: Repository,
        *,
        describe: Describe,
        answered: Callable[[LiveModel, Answer], None],
    ) -> None:
        self._jobs = jobs
        self._engine = engine
        self._repository = repository
        self._describe = describe
        self._answered = answered
        self._pace = Pace(engine.batcher)

    async def outcome(self, claim: Claim) -> Outcome | None:
        """None if the chunk was split instead. Raises JobFailed."""
        job, chunk = claim.job, claim.chunk
        if job.source.base is not None and self._jobs.manifests is None:
            raise JobFailed(
                "The job's rows name files, and the server reads no folder of manifests any more."
            )
        model = await self._model(job)
        path = self._jobs.folder.rows_of(job.id)
        try:
            lines = await self._jobs.in_thread(lambda: read_lines(path, chunk))
        except JobsError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise JobFailed("The job's rows are gone from the server's disk, or changed.") from error
            raise
        failures = claim.attempts - 1
        if failures >= _CHUNK_TRIES and chunk.rows > 1:
            await self._jobs.ask(Store.split, claim, singly(lines, chunk))
            return None
        rows = await self._engine.in_thread(
            lambda base: list(rows_of(lines, chunk, base)), job.source.base, priority=Priority.BATCH
        )
        if failures > _CHUNK_TRIES:
            reason = f"The server failed {failures} times while it answered this row."
            return _outcome(rows, [_Letter("predict", "internal", reason, failures)])
        return _outcome(rows, await self._answers(rows, model, job.wanted.top_k))

    async def _model(self, job: Job) -> LiveModel:
        """Raises JobFailed."""
        wanted = job.wanted
        try:
            model = await self._found(wanted)
        except ModelNotFound:
            raise JobFailed(
                f"Version {wanted.version} of {wanted.model}, which the job began with, is no longer served."
            ) from None
        if model.manifest.digest != wanted.digest:
            raise JobFailed(
                f"Version {wanted.version} of {wanted.model} is another bundle than the job began with."
            )
        return model

    async def _found(self, wanted: Wanted) -> LiveModel:
        """Raises ModelNotFound. Another process may have loaded the version before this one has seen it."""
        try:
            return self._repository.find(wanted.model, wanted.version)
        except ModelNotFound:
            await asyncio.to_thread(self._repository.reconcile)
        return self._repository.find(wanted.model, wanted.version)

    async def _answers(self, rows: list[Row], model: LiveModel, top_k: int) -> list[str | _Letter]:
        """A line or the reason for none, for each row in order; few at once."""
        answers: list[str | _Letter | None] = [None] * len(rows)
        todo = enumerate(rows)

        async def lane(todo: Iterator[tuple[int, Row]]) -> None:
            for place, row in todo:
                async with self._pace.row():
                    answers[place] = await self._answer(row, model, top_k)

        costs = model.costs
        at_once = int((_RUN_S - costs.launch_s) / max(costs.mean_row_s, 1e-6))
        at_once = max(1, min(at_once, _MOST_AT_ONCE))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(lane(todo))
        return [one for one in answers if one is not None]

    async def _answer(self, row: Row, model: LiveModel, top_k: int) -> str | _Letter:
        started_s = time.perf_counter()
        try:
            raw = await self._engine.in_thread(self._load, (row, model), priority=Priority.BATCH)
            answer = await self._until_answered(raw, model, top_k)
            line = self._describe(answer, model, row, started_s)
        except Unreadable as error:
            return _Letter("read", error.code, error.reason)
        except InputError as error:
            return _Letter("decode", error.code, error.message)
        except NonFiniteOutput:
            reason = "The inputs are valid, but the model cannot rate them."
            return _Letter("predict", "model_nonfinite", reason)
        except DeadlineExceeded as error:
            return _Letter("predict", "deadline_exceeded", error.message, _ROW_TRIES)
        except Draining:
            raise
        except Exception:
            log.exception("a job's row cannot be run")
            return _Letter("predict", "internal", "The model cannot run this row.")
        self._answered(model, answer)
        return line

    def _load(self, wanted: tuple[Row, LiveModel]) -> RawInputs:
        row, model = wanted
        if self._jobs.manifests is not None:
            row = self._jobs.manifests.inside(row)
        inputs = model.manifest.inputs
        return row.load({name: inputs.encoder(name).max_bytes for name in inputs.names})

    async def _until_answered(self, raw: RawInputs, model: LiveModel, top_k: int) -> Answer:
        """That there is no place, or that a run hangs, is no fault of the row's."""
        size_bytes = sum(len(getattr(raw, name)) for name in raw.present)
        late = 0
        for _ in itertools.count():
            try:
                async with self._engine.place(
                    lambda: model.costs, priority=Priority.BATCH, timeout_s=_ROW_S, size_bytes=size_bytes
                ) as place:
                    return await place.answer(model, raw, top_k=top_k)
            except (Overloaded, NotReady):
                await asyncio.sleep(_AGAIN_S)
            except DeadlineExceeded:
                late += 1
                if late == _ROW_TRIES:
                    raise
        raise AssertionError("it counts without end")


def _outcome(rows: list[Row], answers: list[str | _Letter]) -> Outcome:
    results = [one for one in answers if isinstance(one, str)]
    letters = [
        dead_letter(
            row,
            stage=one.stage,
            code=one.code,
            reason=one.reason,
            attempts=one.attempts,
            at=datetime.now(UTC),
        )
        for row, one in zip(rows, answers, strict=True)
        if isinstance(one, _Letter)
    ]
    return Outcome(
        results="".join(f"{line}\n" for line in results).encode(),
        letters="".join(f"{json.dumps(letter, default=json_bytes)}\n" for letter in letters).encode(),
        scored=len(results),
        failed=len(letters),
    )
