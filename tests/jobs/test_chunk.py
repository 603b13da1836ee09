"""What becomes of a chunk where a healthy server of one process shows nothing: others load, or die."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.api.answers import job_result
from app.jobs.chunk import Answering, JobFailed
from app.jobs.folder import Folder
from app.jobs.job import Claim, Source, Wanted
from app.jobs.jobs import Jobs, Limits
from app.jobs.spool import Caps
from app.jobs.store import Store
from app.runtime.session import Device
from app.serving.engine import Engine
from app.serving.engine import Limits as EngineLimits
from app.serving.loading import loader
from app.serving.plan import Plan
from app.serving.repository import Repository
from tests import tiny
from tests.jobs.asking import lines
from tests.serving.test_batcher import Told


def repository(models: Path) -> Repository:
    made = Repository(models, loader(device=Device("cpu"), threads=1), plan=Plan(versions="all"))
    made.start()
    return made


@asynccontextmanager
async def answering(models: Repository, folder: Path) -> AsyncIterator[tuple[Jobs, Answering]]:
    place = Folder(folder)
    place.make()
    limits = Limits(Caps(rows=100, bytes=10**6), unfinished=9, keep_s=60)
    at_once = EngineLimits(max_batch_size=4, max_rows=8, max_bytes=2**20, hang_s=10)
    async with (
        Jobs(place, limits, manifests=None) as jobs,
        Engine(at_once, decode_threads=1, observer=Told()) as engine,
    ):
        yield jobs, Answering(jobs, engine, models, describe=job_result, answered=lambda *_: None)


async def submit(jobs: Jobs, models: Repository, *, version: int, rows: int) -> None:
    manifest = models.find("tiny", version).manifest
    wanted = Wanted("tiny", version, manifest.digest, 1)
    async with jobs.receiving() as receipt:
        await receipt.write(lines({"text": f"word {number}"} for number in range(rows)))
        await receipt.submit(Source(), wanted)


async def claimed(jobs: Jobs) -> Claim:
    claim = await jobs.ask(Store.claim, now_s=0.0, lease_s=10.0, at_s=0.0)
    assert claim is not None
    return claim


async def died(jobs: Jobs) -> Claim:
    """The claim of a process that ends before its chunk does."""
    claim = await claimed(jobs)
    await jobs.ask(Store.release, claim, is_attempt=True)
    return claim


def test_a_version_that_another_process_loaded_is_looked_for_before_the_job_fails(tmp_path: Path) -> None:
    tiny.write(tmp_path / "models")
    ours = repository(tmp_path / "models")
    tiny.write(tmp_path / "models", version=2)
    others = repository(tmp_path / "models")

    async def scenario() -> None:
        async with answering(ours, tmp_path / "jobs") as (jobs, chunks):
            await submit(jobs, others, version=2, rows=3)
            claim = await claimed(jobs)
            outcome = await chunks.outcome(claim)
            assert outcome is not None
            assert outcome.scored == 3
            (tmp_path / "models" / "tiny" / "2").rename(tmp_path / "gone")
            ours.reconcile()
            with pytest.raises(JobFailed, match="no longer served"):
                await chunks.outcome(claim)

    asyncio.run(scenario())


def test_a_row_that_ends_its_process_a_fourth_time_is_an_error(tmp_path: Path) -> None:
    """Three times among others, once alone; those others are answered."""
    tiny.write(tmp_path / "models")
    models = repository(tmp_path / "models")

    async def scenario() -> None:
        async with answering(models, tmp_path / "jobs") as (jobs, chunks):
            await submit(jobs, models, version=1, rows=2)
            for _ in range(3):
                assert (await died(jobs)).chunk.rows == 2
            assert await chunks.outcome(await claimed(jobs)) is None, "it is split"
            assert (await died(jobs)).chunk.rows == 1
            killer = await claimed(jobs)
            outcome = await chunks.outcome(killer)
            assert outcome is not None
            [letter] = map(json.loads, outcome.letters.splitlines())
            assert (letter["position"], letter["code"], letter["attempts"]) == (0, "internal", 4)
            assert await jobs.ask(Store.finish, killer, outcome, at_s=0.0) is not None
            other = await chunks.outcome(await claimed(jobs))
            assert other is not None
            assert other.scored == 1

    asyncio.run(scenario())
