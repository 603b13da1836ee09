"""Jobs over HTTP: rows in, answers and dead letters out, whatever happens to the server in between."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.keys import Scope, new_key
from app.jobs.errors import TooMany
from app.jobs.folder import Folder
from app.jobs.jobs import Jobs, Limits
from app.jobs.spool import Caps
from tests import tiny
from tests.api.test_keys import write as write_keys
from tests.jobs.asking import LINES, POISON, Asker, lines, problem, row
from tests.server import Server, free_port, serving
from tests.test_cli import trichord
from tests.test_workers import children, wait_for


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "day").mkdir()
    (folder / "day" / "a.png").write_bytes(tiny.png((250, 5, 5)))
    (folder / "day" / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "day" / "inside.png").symlink_to(folder / "day" / "a.png")
    rows = [
        {"id": "near", "image": "a.png"},
        {"id": "linked", "image": "inside.png"},
        {"id": "linked out", "image": "link.png"},
        {"id": "absolute", "image": str(folder.parent / "secret.png")},
        {"id": "in a letter", "stage": "read", "code": "c", "base": "/", "row": {"image": "etc/passwd"}},
        {"id": "far", "image": "../../secret.png"},
        {"id": "gone", "image": "b.png"},
        {"id": "said", "text": "abc"},
    ]
    (folder / "day" / "rows.jsonl").write_bytes(lines(rows))
    (folder / "day" / "rows.csv").write_text("id,image,text\nc1,a.png,abc\nc2,,def\n")
    (folder.parent / "secret.png").write_bytes(tiny.png((1, 2, 3)))
    (folder / "out.jsonl").symlink_to(folder.parent / "secret.png")
    return folder


@pytest.fixture(scope="module")
def server(models_dir: Path, manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    jobs_dir = tmp_path_factory.mktemp("jobs")
    with serving(models_dir, jobs_dir=jobs_dir, manifests_dir=manifests, jobs_max_rows=5_000) as running:
        yield running


@pytest.fixture
def asker(server: Server) -> Asker:
    return Asker(server)


def test_each_row_is_answered_as_alone_or_says_why_not(server: Server, asker: Asker) -> None:
    rows: list[dict[str, Any]] = [row(number) for number in range(150)]
    rows[7]["image"] = rows[99]["image"] = POISON
    rows[20] = {"id": "r19", "text": "the same id"}
    rows[30] = {"id": "r30"}
    rows[31] = {"id": "r31", "image": "some/file.png"}
    body = lines(rows).replace(b'"id": "r40"', b'"id": "r40', 1)  # a line that is no JSON

    job = asker.submit(body, query="?model=tiny&top_k=2&name=first")
    assert (job["rows"]["total"], job["name"], job["top_k"], job["model"]["name"]) == (
        150,
        "first",
        2,
        "tiny",
    )
    job = asker.until(job["id"], "completed")
    results, letters = asker.output(job["id"], "results"), asker.output(job["id"], "errors")
    assert job["rows"] == {"total": 150, "scored": len(results), "failed": len(letters)}
    assert job["progress"] == 1
    failed = {letter["position"]: (letter["stage"], letter["code"]) for letter in letters}
    assert failed[7] == failed[99] == ("decode", "unsupported_media_type")
    assert failed[20] == ("read", "duplicate_id")
    assert failed[30] == ("read", "no_modality")
    assert failed[31][0] == "read", "an upload names no files of the server's"
    assert failed[40][0] == "read"
    assert len(failed) == 6
    positions = [said["position"] for said in results]
    assert positions == sorted(set(range(150)) - set(failed)), "each row once, in order"
    assert all(len(said["top"]) == 2 for said in results)
    one = next(said for said in results if said["id"] == "r123")
    alone = httpx.post(
        f"{server.url}/v1/predict/batch", json={"rows": [{k: v for k, v in rows[123].items() if k != "id"}]}
    ).json()["rows"][0]
    assert one["label"] == alone["label"]
    assert one["probability"] == pytest.approx(alone["probability"], abs=1e-6)


def test_what_failed_can_be_sent_again_as_it_is(asker: Asker) -> None:
    job = asker.submit(lines([row(1, image=POISON), row(2)]))
    asker.until(job["id"], "completed")
    [letter] = asker.output(job["id"], "errors")
    assert letter["row"] == row(1, image=POISON)
    again = asker.submit(lines([letter]))
    asker.until(again["id"], "completed")
    [twice] = asker.output(again["id"], "errors")
    assert (twice["id"], twice["code"], twice["row"]) == ("r1", letter["code"], letter["row"])


def test_rows_may_come_as_a_form(asker: Asker) -> None:
    made = asker.ask(
        "POST",
        "/v1/jobs",
        files=[("name", (None, "of a form")), ("rows", ("rows.jsonl", lines([row(1), row(2)])))],
    )
    assert made.status_code == 202
    job = asker.until(made.json()["id"], "completed")
    assert (job["name"], job["rows"]["scored"]) == ("of a form", 2)


def test_a_manifest_names_files_below_its_folder_and_no_others(asker: Asker) -> None:
    made = asker.name("day/rows.jsonl", name="today")
    assert made.status_code == 202, made.text
    job = asker.until(made.json()["id"], "completed")
    assert job["manifest"] == "day/rows.jsonl"
    assert [said["id"] for said in asker.output(job["id"], "results")] == ["near", "linked", "said"]
    letters = {letter["id"]: letter for letter in asker.output(job["id"], "errors")}
    assert {name: letter["code"] for name, letter in letters.items()} == {
        "linked out": "not_a_file",
        "absolute": "not_a_file",
        "in a letter": "not_a_file",
        "far": "not_a_file",
        "gone": "file_not_found",
    }
    assert letters["gone"]["base"] == "day"
    assert "/" not in letters["gone"]["reason"], "where the folder lies is nobody's business"

    table = asker.name("day/rows.csv").json()
    assert asker.until(table["id"], "completed")["rows"] == {"total": 2, "scored": 2, "failed": 0}


def test_a_manifest_that_is_none_says_so(asker: Asker, manifests: Path) -> None:
    (manifests / "header.csv").write_text('"id"x,text\n1,a\n')
    (manifests / "broken.parquet").write_bytes(b"PAR1 no more")
    for named in ("header.csv", "broken.parquet"):
        refused = asker.name(named)
        assert problem(refused) == (422, "invalid_parameter")
        assert str(manifests) not in refused.text


@pytest.mark.parametrize(
    "named", ["../secret.png", "/etc/passwd", "out.jsonl", "nothing.jsonl", "", "day/a.png"]
)
def test_no_other_file_of_the_machine_is_a_manifest(asker: Asker, named: str) -> None:
    refused = asker.name(named)
    assert problem(refused) == (422, "invalid_parameter")
    assert str(Path.cwd()) not in refused.text


def test_a_job_that_is_cancelled_keeps_what_is_finished(asker: Asker) -> None:
    job = asker.submit(lines(map(row, range(4_000))))
    wait_for(lambda: asker.done(job["id"]) > 0)
    cancelled = asker.ask("POST", f"/v1/jobs/{job['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"
    finished = cancelled["rows"]["scored"]
    assert 0 < finished < 4_000
    assert len(asker.output(job["id"], "results")) == finished
    assert asker.ask("POST", f"/v1/jobs/{job['id']}/cancel").json() == cancelled, "twice is as good as once"
    after = asker.submit(lines([row(1)]))
    asker.until(after["id"], "completed")
    assert asker.done(job["id"]) == finished, "nothing is added to a job that has ended"


def test_a_job_that_is_deleted_is_gone(asker: Asker) -> None:
    job = asker.submit(lines(map(row, range(300))))
    assert asker.ask("DELETE", f"/v1/jobs/{job['id']}").status_code == 204
    for path in ("", "/results", "/errors"):
        assert problem(asker.ask("GET", f"/v1/jobs/{job['id']}{path}")) == (404, "job_not_found")
    assert problem(asker.ask("DELETE", f"/v1/jobs/{job['id']}")) == (404, "job_not_found")
    assert job["id"] not in [one["id"] for one in asker.ask("GET", "/v1/jobs?limit=100").json()["jobs"]]


def test_the_newest_jobs_come_first_and_in_pages(asker: Asker) -> None:
    made = [asker.submit(lines([row(number)]))["id"] for number in range(3)]
    first = asker.ask("GET", "/v1/jobs?limit=2").json()
    assert [one["id"] for one in first["jobs"]] == made[:0:-1]
    asker.ask("DELETE", f"/v1/jobs/{made[1]}")  # a page goes on where its last job was
    rest = asker.ask("GET", f"/v1/jobs?limit=1&before={first['next']}").json()
    assert [one["id"] for one in rest["jobs"]] == made[:1]


def test_the_same_key_makes_one_job(asker: Asker) -> None:
    sent = [asker.submit(lines([row(1)]), **{"Idempotency-Key": "once"})["id"] for _ in range(2)]
    assert sent[0] == sent[1]


def test_what_is_wrong_with_a_request_is_said(asker: Asker) -> None:
    def sent(query: str = "", body: bytes = b"", **headers: str) -> tuple[int, str]:
        return problem(asker.ask("POST", f"/v1/jobs{query}", content=body, headers=LINES | headers))

    assert sent("?model=nobody") == (404, "model_not_found")
    assert sent("?top_k=0") == (422, "invalid_parameter")
    assert sent("?what=1") == (422, "invalid_parameter")
    assert sent(**{"Content-Type": "text/plain"}) == (415, "unsupported_media_type")
    assert sent(body=lines({"text": "a"} for _ in range(5_001))) == (413, "body_too_large")
    assert sent(**{"Idempotency-Key": "a b"}) == (422, "invalid_parameter")
    assert asker.submit(b"")["state"] == "completed", "of no rows, all are answered"


def test_without_a_folder_there_are_no_jobs(request: pytest.FixtureRequest) -> None:
    plain: Server = request.getfixturevalue("plain_server")
    refused = httpx.post(f"{plain.url}/v1/jobs", content=b"", headers=LINES)
    assert problem(refused) == (404, "jobs_off")
    assert "TRICHORD_JOBS_DIR" in refused.json()["detail"]


@pytest.fixture(scope="module")
def plain_server(models_dir: Path) -> Iterator[Server]:
    with serving(models_dir) as running:
        yield running


def test_a_key_sees_its_own_jobs_only(models_dir: Path, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", ann="predict", bob="predict", ops="admin")
    with serving(models_dir, jobs_dir=tmp_path / "jobs", api_keys_file=tmp_path / "keys") as server:
        ann, bob, ops = (Asker(server, key=keys[name]) for name in ("ann", "bob", "ops"))
        job = ann.submit(lines([row(1)]), **{"Idempotency-Key": "mine"})
        ann.until(job["id"], "completed")
        for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
            asked = bob.ask(method, f"/v1/jobs/{job['id']}{path}")
            assert problem(asked) == (404, "job_not_found"), "as if there were none"
        assert bob.ask("GET", "/v1/jobs").json()["jobs"] == []
        assert bob.submit(lines([row(1)]), **{"Idempotency-Key": "mine"})["id"] != job["id"]
        assert ops.ask("GET", "/v1/jobs").status_code == 403
        assert httpx.get(f"{server.url}/v1/jobs").status_code == 401

        rotated, line = new_key("ann", frozenset({Scope.PREDICT}))
        with (tmp_path / "keys").open("a") as file:
            file.write(f"{line}\n")
        again = Asker(server, key=rotated)
        wait_for(lambda: again.ask("GET", "/v1/jobs").status_code == 200)
        assert again.job(job["id"]) == ann.job(job["id"]), "a new key of the same name"


def test_ended_jobs_are_kept_for_a_while(models_dir: Path, tmp_path: Path) -> None:
    with serving(models_dir, jobs_dir=tmp_path, jobs_keep_hours=1 / 3600) as server:
        asker = Asker(server)
        job = asker.submit(lines([row(1)]))
        asker.until(job["id"], "completed")
        wait_for(lambda: asker.ask("GET", f"/v1/jobs/{job['id']}").status_code == 404)
        assert list((tmp_path / "rows").iterdir()) == []


def kill(server: Server) -> None:
    """Every process of the server, at once."""
    for process in (server.process.pid, *children(server)):
        os.kill(process, signal.SIGKILL)
    server.process.wait()


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.thorough), 2])
def test_killed_in_the_middle_it_goes_on_and_answers_each_row_once(
    models_dir: Path, tmp_path: Path, workers: int
) -> None:
    rows = [row(number, image=POISON) if number % 50 == 7 else row(number) for number in range(1_500)]
    settings = {"jobs_dir": tmp_path, "workers": workers, "port": free_port(), "log_level": "warning"}
    job_id = ""
    for most in (300, 900):
        with serving(models_dir, **settings) as server:
            asker = Asker(server)
            job_id = job_id or asker.submit(lines(rows))["id"]
            wait_for(lambda: asker.done(job_id) >= most)  # noqa: B023 - it is called at once
            kill(server)
    with serving(models_dir, **settings) as server:
        asker = Asker(server)
        job = asker.until(job_id, "completed")
        results, letters = asker.output(job_id, "results"), asker.output(job_id, "errors")
    assert Counter(one["id"] for one in (*results, *letters)) == Counter(
        f"r{number}" for number in range(1_500)
    )
    assert {letter["position"] for letter in letters} == set(range(7, 1_500, 50))
    assert job["rows"] == {"total": 1_500, "scored": 1_470, "failed": 30}


def test_what_a_worker_had_when_it_was_killed_another_takes(models_dir: Path, tmp_path: Path) -> None:
    """When its claim has run out; the server lives on."""
    with serving(models_dir, jobs_dir=tmp_path, workers=2) as server:
        asker = Asker(server)
        job_id = asker.submit(lines(map(row, range(300))))["id"]
        wait_for(lambda: asker.done(job_id) > 0)
        os.kill(children(server)[0], signal.SIGKILL)
        give_up_s = time.monotonic() + 90
        while state_of(asker, job_id) != "completed":
            assert time.monotonic() < give_up_s
            time.sleep(0.1)
        assert [one["position"] for one in asker.output(job_id, "results")] == list(range(300))


def state_of(asker: Asker, job_id: str) -> str | None:
    """None where the worker that took the call was killed with it."""
    try:
        state: str = asker.job(job_id)["state"]
    except httpx.TransportError:
        return None
    return state


def test_told_to_stop_a_server_gives_its_rows_back(models_dir: Path, tmp_path: Path) -> None:
    settings = {"jobs_dir": tmp_path, "port": free_port()}
    with serving(models_dir, **settings) as server:
        job = Asker(server).submit(lines(map(row, range(1_500))))
        wait_for(lambda: Asker(server).done(job["id"]) > 0)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    with serving(models_dir, **settings) as server:
        asker = Asker(server)
        assert asker.job(job["id"])["state"] == "running"
        asker.until(job["id"], "completed")
        assert [one["position"] for one in asker.output(job["id"], "results")] == list(range(1_500))


def test_a_folder_has_one_server(models_dir: Path, tmp_path: Path) -> None:
    with serving(models_dir, jobs_dir=tmp_path):
        second = trichord(
            "serve", "--models", str(models_dir), "--port", str(free_port()), "--workers", "1",
            TRICHORD_JOBS_DIR=str(tmp_path),
        )  # fmt: skip
    assert second.returncode == 4
    assert "Another server owns the jobs" in second.stderr


def test_rows_that_name_files_end_with_the_folder_that_they_are_in(
    models_dir: Path, manifests: Path, tmp_path: Path
) -> None:
    """Else their names would be looked up from wherever the server was started."""
    rows = [{"id": f"r{number}", "image": "a.png"} for number in range(2_000)]
    (manifests / "day" / "many.jsonl").write_bytes(lines(rows))
    with serving(models_dir, jobs_dir=tmp_path, manifests_dir=manifests) as server:
        job = Asker(server).name("day/many.jsonl").json()
        kill(server)
    with serving(models_dir, jobs_dir=tmp_path) as server:
        ended = Asker(server).until(job["id"], "failed")
    assert "reads no folder of manifests" in ended["reason"]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 100)])
def test_rows_that_were_lost_end_their_job_and_no_other(
    models_dir: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    with serving(models_dir, jobs_dir=tmp_path) as server:
        asker = Asker(server)
        job = asker.submit(lines(map(row, range(3_000))))
        after = asker.submit(lines([row(1)]))
        harm(tmp_path / "rows" / f"{job['id']}.jsonl")
        assert "gone from the server's disk" in asker.until(job["id"], "failed")["reason"]
        asker.until(after["id"], "completed")


def test_an_upload_that_breaks_off_leaves_nothing(models_dir: Path, tmp_path: Path) -> None:
    with serving(models_dir, jobs_dir=tmp_path) as server:
        assert (tmp_path / "rows").stat().st_mode & 0o077 == 0, "rows are for nobody else's eyes"
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: {LINES['Content-Type']}\r\n"
        body = lines(map(row, range(2_000)))
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"{head}Content-Length: {2 * len(body)}\r\n\r\n".encode() + body)
            wait_for(lambda: len(list((tmp_path / "rows").iterdir())) == 1)
        wait_for(lambda: not list((tmp_path / "rows").iterdir()))
        assert Asker(server).ask("GET", "/v1/jobs").json()["jobs"] == []


def test_uploads_on_their_way_count_as_jobs(tmp_path: Path) -> None:
    async def run() -> None:
        folder = Folder(tmp_path)
        folder.make()
        async with Jobs(folder, Limits(Caps(10, 1000), unfinished=1, keep_s=1), manifests=None) as jobs:
            await jobs.room()
            async with jobs.receiving():
                with pytest.raises(TooMany):
                    await jobs.room()
            await jobs.room()

    asyncio.run(run())


def test_a_model_that_is_gone_ends_its_jobs(tmp_path: Path) -> None:
    models, jobs = tmp_path / "models", tmp_path / "jobs"
    tiny.write(models)
    with serving(models, jobs_dir=jobs) as server:
        job = Asker(server).submit(lines(map(row, range(3_000))))
        kill(server)
    (models / "tiny" / "1").rename(tmp_path / "old")
    tiny.write(models, version=2)
    with serving(models, jobs_dir=jobs) as server:
        ended = Asker(server).until(job["id"], "failed")
    assert "no longer served" in ended["reason"]


def test_interactive_rows_pass_a_job(server: Server, asker: Asker) -> None:
    job = asker.submit(lines(map(row, range(4_000))))
    wait_for(lambda: asker.done(job["id"]) > 0)
    for number in range(50):
        said = httpx.post(f"{server.url}/v1/predict", files={"text": (None, f"word {number}")}, timeout=5)
        assert said.status_code == 200
    assert asker.job(job["id"])["state"] == "running", "they did not wait for its end"
    assert server.metrics()["trichord_job_rows_waiting"] > 0
    asker.ask("POST", f"/v1/jobs/{job['id']}/cancel")
