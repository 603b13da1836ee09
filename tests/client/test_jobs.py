"""Jobs from Python: made once, waited for, read and ended, against a real server."""

from __future__ import annotations

import asyncio
import io
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import client as api
from app.client import AsyncClient, Client, Retries, Row
from tests import tiny
from tests.client.scripted import Cut, Say, scripted
from tests.jobs.asking import POISON, lines, row
from tests.jobs.test_jobs import kill
from tests.server import Server, free_port, serving

ONCE = Retries(most=0)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "rows.csv").write_text("id,text\na,uno\nb,due\n")
    return folder


@pytest.fixture(scope="module")
def desk(models_dir: Path, manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(models_dir, jobs_dir=tmp_path_factory.mktemp("jobs"), manifests_dir=manifests) as running:
        yield running


def as_file(folder: Path, body: bytes) -> Path:
    (folder / "rows.jsonl").write_bytes(body)
    return folder / "rows.jsonl"


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "rows"])
def test_rows_become_a_job_however_they_are_held(desk: Server, tmp_path: Path, kind: str) -> None:
    several = [row(number) for number in range(5)] + [row(5, image=POISON)]
    body = lines(several)
    file = as_file(tmp_path, body)
    with Client(desk.url) as client, file.open("rb") as opened:
        given: Any = {
            "path": file,
            "bytes": body,
            "file": opened,
            "rows": [Row(image=tiny.png((n, 255 - n, 40)), text=f"word {n}", id=f"r{n}") for n in range(5)]
            + [Row(image=b"no picture", id="r5")],
        }[kind]
        made = client.create_job(given, model="tiny", top_k=2, name=kind)
        assert (made.total, made.name, made.model, made.top_k) == (6, kind, "tiny", 2)
        job = client.wait_job(made.id, 30, every_s=0.02)
        assert (job.state, job.scored, job.failed, job.is_over) == ("completed", 5, 1, True)
        assert job.expires_at is not None
        found = list(client.job_results(job.id))
        assert [one.id for one in found] == ["r0", "r1", "r2", "r3", "r4"]
        for number, one in enumerate(found):
            alone = client.predict(image=tiny.png((number, 255 - number, 40)), text=f"word {number}")
            assert one.result().label == alone.label
            assert one.result().probability == pytest.approx(alone.probability, abs=1e-6)
            assert (one.digest, len(one.result().top)) == (job.digest, 2)
        [letter] = client.job_errors(job.id)
        assert (letter.id, letter.position) == ("r5", 5)
        assert (letter.stage, letter.code) == ("decode", "unsupported_media_type")
        assert letter.row["id"] == "r5"


def test_a_manifest_of_the_servers_becomes_a_job(desk: Server) -> None:
    with Client(desk.url) as client:
        job = client.create_job(manifest="rows.csv")
        assert job.manifest == "rows.csv"
        client.wait_job(job.id, 30, every_s=0.02)
        assert [one.id for one in client.job_results(job.id)] == ["a", "b"]
        with pytest.raises(api.InvalidParameter, match="no such manifest"):
            client.create_job(manifest="none.csv")
        for given in ({}, {"rows": b"", "manifest": "rows.csv"}):
            with pytest.raises(TypeError, match="of rows or of a manifest"):
                client.create_job(**given)  # type: ignore[arg-type]


def test_results_come_in_pages_without_loss(desk: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    several = [row(n, image=POISON) if n % 10 == 3 else row(n) for n in range(150)]
    with Client(desk.url) as client:
        job = client.wait_job(client.create_job(lines(several)).id, 60, every_s=0.05)
        for rows in (1, 7, 64, 1024):
            monkeypatch.setattr(api, "_PAGE_ROWS", rows)
            assert [one.index for one in client.job_results(job.id)] == [n for n in range(150) if n % 10 != 3]
            assert [one.position for one in client.job_errors(job.id)] == list(range(3, 150, 10))
        left_early = client.job_results(job.id)
        assert next(left_early).index == 0
        left_early.close()


def test_the_asynchronous_client_does_the_same(desk: Server) -> None:
    async def ask() -> None:
        async with AsyncClient(desk.url) as client:
            job = await client.create_job([Row(text="uno", id="a")], name="async")
            job = await client.wait_job(job.id, 30, every_s=0.02)
            assert [one.id async for one in client.job_results(job.id)] == ["a"]
            assert [one async for one in client.job_errors(job.id)] == []
            first = await client.jobs(limit=1)
            assert [one.name for one in first.jobs] == ["async"]
            before = await client.jobs(limit=1, before=first.next)
            assert before.jobs[0].id != job.id
            await client.delete_job(job.id)
            with pytest.raises(api.JobNotFound) as raised:
                await client.job(job.id)
            assert raised.value.request_id

    asyncio.run(ask())


def test_a_job_is_ended(desk: Server) -> None:
    with Client(desk.url) as client:
        job = client.create_job(lines(map(row, range(3_000))))
        with pytest.raises(api.DeadlinePassed, match="of 3000 rows"):
            client.wait_job(job.id, 0)
        cancelled = client.cancel_job(job.id)
        assert (cancelled.state, cancelled.is_over) == ("cancelled", True)
        client.delete_job(job.id)
        for call in (client.job, client.cancel_job, client.delete_job):
            with pytest.raises(api.JobNotFound):
                call(job.id)
        with pytest.raises(api.NotFound):
            list(client.job_results("../models"))


def test_a_job_whose_answer_was_lost_is_made_once() -> None:
    made = (
        b'{"id": "job_1", "state": "queued", "model": {"name": "m", "version": 1, "digest": "d"}, "top_k": 1,'
        b'"rows": {"total": 0, "scored": 0, "failed": 0}, "created_at": "2026-11-27T00:00:00Z"}'
    )
    soon = Retries(base_s=0.001)
    with scripted(Cut(), Say(202, made)) as server, Client(server.url, retries=soon) as client:
        assert client.create_job(b"").id == "job_1"
        first, second = (one.headers["idempotency-key"] for one in server.asked)
        assert first == second
        client.create_job(b"")
        client.create_job(b"", idempotency_key="mine")
        third, fourth = (one.headers["idempotency-key"] for one in server.asked[2:])
        assert third != first
        assert fourth == "mine"
        with pytest.raises(ValueError, match="printable ASCII"):
            client.create_job(b"", idempotency_key="für mich")
        assert len(server.asked) == 4


def test_a_job_outlives_its_server(models_dir: Path, tmp_path: Path) -> None:
    settings = {"jobs_dir": tmp_path, "port": free_port()}
    with serving(models_dir, **settings) as server, Client(server.url) as client:
        job = client.create_job(lines(map(row, range(500))))
        kill(server)
    with serving(models_dir, **settings) as server, Client(server.url) as client:
        assert client.wait_job(job.id, 60, every_s=0.05).scored == 500
        assert [one.index for one in client.job_results(job.id)] == list(range(500))


def test_a_server_without_jobs_says_so(server: Server) -> None:
    with Client(server.url) as client:
        for call in (client.jobs, lambda: client.create_job(b"")):
            with pytest.raises(api.JobsOff) as raised:
                call()
            assert raised.value.request_id


def test_a_server_whose_disk_is_full_says_so(models_dir: Path, tmp_path: Path) -> None:
    body = io.BytesIO(lines(map(row, range(10_000))))
    with serving(models_dir, jobs_dir=tmp_path) as server, Client(server.url, retries=ONCE) as client:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
        with pytest.raises(api.JobsUnavailable) as raised:
            client.create_job(body)
        assert raised.value.retry_after_s
        assert raised.value.request_id
        resource.prlimit(
            server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        assert client.create_job(lines([row(1)])).total == 1, "when there is room again, it goes on"
        assert len(list((tmp_path / "rows").iterdir())) <= 1
