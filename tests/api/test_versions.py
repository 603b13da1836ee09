"""Versions change under load: no request fails, and each answer comes from one version and names it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import tiny
from tests.server import Server, form, serving
from tests.serving.test_repository import spoil


@pytest.fixture
def flowing(tmp_path: Path) -> Iterator[tuple[Path, Server]]:
    """A server over tiny/1 that looks at its folder often."""
    tiny.write(tmp_path, version=1)
    with serving(tmp_path, poll_seconds=0.05) as server:
        yield tmp_path, server


@contextmanager
def load(server: Server, *, clients: int = 4) -> Iterator[list[httpx.Response]]:
    """Requests all the time; every response in the order of its answer."""
    answers: list[httpx.Response] = []
    stop = threading.Event()

    def client(seed: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            while not stop.is_set():
                answers.append(http.post("/v1/predict", files=form(tiny.row(seed))))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until(true: Callable[[], bool], *, seconds: float = 20) -> None:
    done = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        done.wait(0.02)
    raise TimeoutError


def admin(server: Server, path: str, method: str = "POST", **body: object) -> httpx.Response:
    return httpx.request(method, f"{server.url}/v1/admin/models{path}", json=body or None, timeout=30)


def test_thirty_reloads_under_load_a_third_of_them_bad(flowing: tuple[Path, Server]) -> None:
    folder, server = flowing
    with load(server) as answers:
        for version in range(2, 32):
            made = tiny.write(folder / "made", version=version)
            if version % 3 == 0:
                spoil(made)
            made.rename(folder / "tiny" / str(version))
            states = ("READY", "UNAVAILABLE") if version % 3 else ("UNAVAILABLE",)
            until(lambda version=version, states=states: state(server, version) in states)
    assert {answer.status_code for answer in answers} == {200}
    versions = [answer.json()["model"]["version"] for answer in answers]
    assert set(versions) <= {version for version in range(1, 32) if version % 3}
    assert versions[-1] == 31
    digests = {(answer.json()["model"]["version"], answer.json()["model"]["digest"]) for answer in answers}
    assert len(digests) == len(set(versions)), "one digest to a version"


def state(server: Server, version: int) -> str | None:
    found = [one["state"] for one in admin(server, "", "GET").json() if one["version"] == version]
    return found[0] if found else None


def test_promote_canary_and_rollback_over_http(flowing: tuple[Path, Server]) -> None:
    folder, server = flowing
    tiny.write(folder, version=2)
    until(lambda: state(server, 2) == "READY")

    def answering(**fields: str) -> int:
        return int(server.predict(tiny.row(1, ("text",)), **fields).json()["model"]["version"])

    assert admin(server, "/tiny/promote", version=1).json()["plan"]["stable"] == 1
    assert (answering(), answering(version="stable")) == (1, 1)
    assert admin(server, "/tiny", "PUT", stable=1, canary=2, canary_share=0.5).status_code == 200
    assert {answering() for _ in range(40)} == {1, 2}
    assert answering(version="canary") == 2
    admin(server, "/tiny/promote", version=2)
    assert answering() == 2
    admin(server, "/tiny/rollback")
    assert answering() == 1
    refused = admin(server, "/tiny/promote", version=7)
    assert (refused.status_code, refused.json()["code"]) == (409, "load_failed")
    assert answering() == 1


def test_a_promote_that_is_sent_twice_can_still_be_rolled_back(flowing: tuple[Path, Server]) -> None:
    folder, server = flowing
    tiny.write(folder, version=2)
    until(lambda: state(server, 2) == "READY")
    admin(server, "/tiny/promote", version=1)
    for _ in range(2):
        plan = admin(server, "/tiny/promote", version=2).json()["plan"]
        assert (plan["stable"], plan["previous"]) == (2, 1)
    assert admin(server, "/tiny/rollback").json()["plan"]["stable"] == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"version": true}', 422, "invalid_parameter"),
        (b'{"version": "1"}', 422, "invalid_parameter"),
        (b'{"version": 0}', 422, "invalid_parameter"),
        (b"{}", 422, "invalid_parameter"),
        (b"{", 400, "bad_request"),
        (b"\xff", 400, "bad_request"),
        (b'{"version": 1, "version": 1}', 400, "bad_request"),
        (b" " * 2**20, 413, "body_too_large"),
    ],
)
def test_a_change_that_cannot_be_read_changes_nothing(
    server: Server, body: bytes, status: int, code: str
) -> None:
    url, headers = f"{server.url}/v1/admin/models/tiny", {"content-type": "application/json"}
    refused = httpx.post(f"{url}/promote", content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    if status != 422:
        refused = httpx.put(url, content=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert httpx.post(f"{url}/promote", content=b'{"version": 1}').status_code == 415


def test_unload_and_load_over_http(flowing: tuple[Path, Server]) -> None:
    _, server = flowing
    assert admin(server, "/tiny/unload").json()["plan"]["enabled"] is False
    gone = server.predict(tiny.row(1))
    assert (gone.status_code, gone.json()["code"]) == (404, "model_not_found")
    unready = httpx.get(f"{server.url}/readyz")
    assert (unready.status_code, unready.json()["code"]) == (503, "not_ready")
    assert httpx.get(f"{server.url}/v2/health/ready").status_code == 503
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    assert admin(server, "/tiny/load").status_code == 200
    assert server.predict(tiny.row(1)).status_code == 200
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert admin(server, "/huge/load").json()["code"] == "model_not_found"
    assert admin(server, "/tiny", "PUT", versions="some").json()["code"] == "invalid_parameter"


def test_a_folder_that_cannot_be_written_refuses_changes(flowing: tuple[Path, Server]) -> None:
    """A directory in the plan's place stands in for a read-only mount: root writes anywhere."""
    folder, server = flowing
    (folder / "tiny" / "serving.json").mkdir()
    refused = admin(server, "/tiny/promote", version=1)
    assert (refused.status_code, refused.json()["code"]) == (409, "load_failed")
    assert server.predict(tiny.row(1)).status_code == 200
