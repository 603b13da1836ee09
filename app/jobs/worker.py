"""Answers jobs in what the interactive requests of this process leave: chunk by chunk, oldest job first.

A chunk is claimed for a while and the claim is renewed; when this process dies, the claim runs out and
another takes the chunk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from app.jobs.chunk import Answering, Describe, JobFailed
from app.jobs.errors import JobsError
from app.jobs.job import Claim, Job, Outcome, State
from app.jobs.jobs import Jobs
from app.jobs.store import Backlog, Store
from app.serving.engine import Answer, Engine
from app.serving.model import LiveModel
from app.serving.repository import Repository

log = logging.getLogger(__name__)

_LEASE_S: Final = 15.0
_IDLE_S: Final = 0.5  # between two looks for work
_AGAIN_S: Final = 1.0  # after the database failed


class Observer(Protocol):
    """Told what happened, for metrics."""

    def answered(self, model: LiveModel, answer: Answer) -> None: ...

    def finished(self, outcome: Outcome) -> None: ...

    def ended(self, state: State) -> None: ...

    def waiting(self, backlog: Backlog) -> None: ...


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
        self._answering = Answering(jobs, engine, repository, describe=describe, answered=observer.answered)
        self._observer = observer
        self._is_stopping = is_stopping
        self._is_well = True

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
        work = asyncio.create_task(self._answering.outcome(claim))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_LEASE_S / 3)
                if not work.done() and not await self._renewed(claim):
                    return  # it was cancelled or deleted, or taken for lost
            outcome = work.result()
        except JobFailed as failure:
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
