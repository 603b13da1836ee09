"""Answers jobs in what the interactive requests of this process leave: chunk by chunk, oldest job first.

Rows go through the engine like those of a stream, as class batch, and few at once: what an interactive
request may find before it is one short run. A chunk is claimed for a while and the claim is renewed; when
this process dies, the claim runs out and another takes the chunk.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from app.bundle.errors import InputError
from app.bundle.sample import RawInputs
from app.jobs.errors import JobsError
from app.jobs.job import Claim, Job, Outcome, State
from app.jobs.jobs import Jobs
from app.jobs.pace import Pace
from app.jobs.spool import read_lines, rows_of, singly
from app.jobs.store import Backlog, Store
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
_CHUNK_TRIES: Final = 3  # of which none came to an end: then its rows are taken one by one
_LEASE_S: Final = 15.0
_IDLE_S: Final = 0.5  # between two looks for work
_AGAIN_S: Final = 1.0  # after the database failed


class Observer(Protocol):
    """Told what happened, for metrics."""

    def answered(self, model: LiveModel, answer: Answer) -> None: ...

    def finished(self, outcome: Outcome) -> None: ...

    def ended(self, state: State) -> None: ...

    def waiting(self, backlog: Backlog) -> None: ...


Describe = Callable[[Answer, LiveModel, Row, float], str]
"""A result's line of JSON, of the row that was begun at a time of perf_counter."""


@dataclass(frozen=True, slots=True)
class _Letter:
    """Why a row has no answer."""

    stage: Stage
    code: str
    reason: str
    attempts: int = 1


class _Failed(Exception):
    """The job as a whole cannot go on."""


class Worker:
    """The share of one process in all jobs."""

    def __init__(
        self,
        jobs: Jobs,
        engine: Engine,
        repository: Repository,
        *,
        describe: Describe,
        observer: Observer,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._jobs = jobs
        self._engine = engine
        self._repository = repository
        self._describe = describe
        self._observer = observer
        self._is_stopping = is_stopping
        self._is_well = True
        self._pace = Pace(engine.batcher)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """While the block lasts. A chunk that is not finished at its end is given back."""
        tasks = [
            asyncio.create_task(self._turns(), name="jobs"),
            asyncio.create_task(self._sweep(), name="jobs kept"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # --- turns --------------------------------------------------------------------------------

    async def _turns(self) -> None:
        while True:
            wait_s = await self._kept_alive(self._turn)
            if wait_s:
                self._jobs.added.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._jobs.added.wait(), wait_s)

    async def _kept_alive(self, turn: Callable[[], Awaitable[float]]) -> float:
        """The seconds that `turn` says to wait; whatever it raises, the next may find the world well."""
        try:
            wait_s = await turn()
        except Exception:
            if self._is_well:
                log.exception("jobs cannot go on; they are tried again")
            self._is_well = False
            return _AGAIN_S
        if not self._is_well:
            log.info("jobs go on")
        self._is_well = True
        return wait_s

    async def _turn(self) -> float:
        """One chunk, if there is one; how long to wait for the next."""
        self._observer.waiting(await self._jobs.ask(Store.backlog))
        if self._is_stopping():
            return _IDLE_S
        claim = await self._jobs.ask(Store.claim, now_s=time.monotonic(), lease_s=_LEASE_S, at_s=time.time())
        if claim is None:
            return _IDLE_S
        try:
            await self._chunk(claim)
        except BaseException as error:
            is_attempt = isinstance(error, Exception) and not isinstance(error, JobsError)
            is_attempt = is_attempt and not self._is_stopping()
            with suppress(JobsError):
                await asyncio.shield(self._jobs.ask(Store.release, claim, is_attempt=is_attempt))
            raise
        return 0.0

    async def _chunk(self, claim: Claim) -> None:
        work = asyncio.create_task(self._outcome(claim))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_LEASE_S / 3)
                if not work.done() and not await self._renewed(claim):
                    return  # it was cancelled or deleted, or taken for lost
            outcome = work.result()
        except _Failed as failure:
            if await self._jobs.ask(Store.fail, claim.job.id, str(failure), at_s=time.time()):
                self._ended(State.FAILED, claim.job)
                await self._jobs.drop_rows(claim.job.id)
            return
        finally:
            work.cancel()
            await asyncio.wait({work})
        if outcome is None:
            return
        job = await self._jobs.ask(Store.finish, claim, outcome, at_s=time.time())
        if job is not None:
            self._observer.finished(outcome)
        if job is not None and not job.is_unfinished:
            self._ended(job.state, job)
            await self._jobs.drop_rows(job.id)

    def _ended(self, state: State, job: Job) -> None:
        self._observer.ended(state)
        log.info("job ended", extra={"job": job.id, "state": state.value, "rows": job.total})

    async def _renewed(self, claim: Claim) -> bool:
        return await self._jobs.ask(Store.renew, claim, now_s=time.monotonic(), lease_s=_LEASE_S)

    # --- a chunk ------------------------------------------------------------------------------

    async def _outcome(self, claim: Claim) -> Outcome | None:
        """None if the chunk was split instead. Raises _Failed."""
        job, chunk = claim.job, claim.chunk
        if job.source.base is not None and self._jobs.manifests is None:
            raise _Failed("The job's rows name files, and the server reads no folder of manifests any more.")
        model = self._model(job)
        path = self._jobs.folder.rows_of(job.id)
        try:
            lines = await self._jobs.in_thread(lambda: read_lines(path, chunk))
        except JobsError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise _Failed("The job's rows are gone from the server's disk, or changed.") from error
            raise
        is_suspect = claim.attempts > _CHUNK_TRIES
        if is_suspect and chunk.rows > 1:
            await self._jobs.ask(Store.split, claim, singly(lines, chunk))
            return None
        rows = await self._engine.in_thread(
            lambda base: list(rows_of(lines, chunk, base)), job.source.base, priority=Priority.BATCH
        )
        if is_suspect:
            reason = f"The server failed {claim.attempts - 1} times while it answered this row."
            return _outcome(rows, [_Letter("predict", "internal", reason, claim.attempts - 1)])
        return _outcome(rows, await self._answers(rows, model, job.wanted.top_k))

    def _model(self, job: Job) -> LiveModel:
        wanted = job.wanted
        try:
            model = self._repository.find(wanted.model, wanted.version)
        except ModelNotFound:
            raise _Failed(
                f"Version {wanted.version} of {wanted.model}, which the job began with, is no longer served."
            ) from None
        if model.manifest.digest != wanted.digest:
            raise _Failed(
                f"Version {wanted.version} of {wanted.model} is another bundle than the job began with."
            )
        return model

    async def _answers(self, rows: list[Row], model: LiveModel, top_k: int) -> list[str | _Letter]:
        """A line or the reason for none, for each row in order; few at once."""
        answers: list[str | _Letter | None] = [None] * len(rows)
        todo = enumerate(rows)

        async def lane(todo: Iterator[tuple[int, Row]]) -> None:
            for place, row in todo:
                async with self._pace.row():
                    answers[place] = await self._answer(row, model, top_k)

        at_once = max(1, min(int(_RUN_S / max(model.costs.mean_row_s, 1e-6)), _MOST_AT_ONCE))
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
        self._observer.answered(model, answer)
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

    # --- what is kept -------------------------------------------------------------------------

    async def _sweep(self) -> None:
        keep_s = self._jobs.limits.keep_s

        async def sweep() -> float:
            for job_id in await self._jobs.ask(Store.finished_before, time.time() - keep_s):
                await self._jobs.forget(job_id)
            return min(max(keep_s / 10, 0.2), 60.0)

        while True:
            wait_s = await self._kept_alive(sweep)
            await asyncio.sleep(wait_s)


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
