"""deploy/ray_serve.py on a Ray of this machine, asked over HTTP as a cluster would be."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.api.errors import CATALOGUE
from app.runtime.predictor import Predictor
from tests import tiny
from tests.ray_head import Head, ray_head
from tests.server import Server, free_port

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Workers find deploy/ where they look for modules, as in an image that holds a checkout."""
    with ray_head(cpus=2, PYTHONPATH=str(ROOT)) as found:
        yield found


@contextmanager
def deployed(head: Head, config: dict[str, Any], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    file = log.with_name("serve.yaml")
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(file)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | head.environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(90)


def configured(models_dir: Path, port: int, **environment: str) -> dict[str, Any]:
    """deploy/ray_serve.yaml with what it says must be changed."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "ray_serve.yaml").read_text())
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    [application] = config["applications"]
    application["args"] = {"replicas": 1}
    application["runtime_env"]["env_vars"] |= {"TRICHORD_MODELS_DIR": str(models_dir), **environment}
    return config


@pytest.fixture(scope="module")
def server(head: Head, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "serve.log"
    with deployed(head, configured(models_dir, port), log) as process:
        found = Server(port=port, process=process, log=log)
        give_up_s = time.monotonic() + 180
        while not is_ready(found):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_s, log.read_text()
            assert "DEPLOY_FAILED" not in log.read_text(), log.read_text()
            time.sleep(0.2)
        yield found


def is_ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_a_form_is_answered_as_everywhere(server: Server, predictor: Predictor) -> None:
    for subset in (("image",), ("text", "audio"), ("image", "text", "audio")):
        raw = tiny.row(7, subset)
        said = server.predict(raw)
        alone = predictor.predict(raw)
        assert said.status_code == 200
        assert said.json()["label"] == alone.best.label
        assert abs(said.json()["probability"] - alone.best.probability) < 1e-5
        assert said.json()["modalities"]["used"] == list(subset)


def test_a_refusal_is_the_same_problem(server: Server) -> None:
    said = httpx.post(f"{server.url}/v1/predict", files={"image": b"no picture"}, timeout=30)
    assert said.headers["content-type"] == "application/problem+json"
    problem = said.json()
    assert said.status_code == problem["status"] == 415
    assert (problem["code"], problem["part"]) == ("unsupported_media_type", "image")
    assert problem["title"] == CATALOGUE["unsupported_media_type"].title
    assert problem["request_id"] in said.headers["x-request-id"]
    assert httpx.get(f"{server.url}/nowhere").json()["code"] == "not_found"


def test_probes_answer(server: Server) -> None:
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}


def test_a_body_is_read_as_it_comes_and_a_client_that_leaves_is_noticed(server: Server) -> None:
    """A row's answer is there before the next row is sent; then nobody waits for the rest."""
    head = (
        "POST /v1/predict/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(head.encode())
        for name in ("a", "b"):
            row = json.dumps({"id": name, "text": "uno"}).encode() + b"\n"
            raw.sendall(b"%x\r\n%s\r\n" % (len(row), row))
            wire = b""
            while f'"id":"{name}"'.encode() not in wire:
                wire += raw.recv(65536)
        assert ended_streams(server) == 0
    give_up_s = time.monotonic() + 30
    while ended_streams(server) == 0:
        assert time.monotonic() < give_up_s, "the application never heard that its client left"
        time.sleep(0.1)


def ended_streams(server: Server) -> float:
    counts = server.metrics()
    return sum(
        count
        for name, count in counts.items()
        if name.startswith("trichord_requests_total") and "predict/stream" in name
    )


def test_a_replica_that_dies_is_replaced(server: Server, head: Head) -> None:
    [replica] = head.workers("ServeReplica")
    os.kill(replica, signal.SIGKILL)
    give_up_s = time.monotonic() + 120
    while not is_ready(server) or head.workers("ServeReplica") in ([], [replica]):
        assert time.monotonic() < give_up_s
        time.sleep(0.2)
    assert server.predict(tiny.row(1)).status_code == 200


def test_settings_that_replicas_cannot_have_are_refused(models_dir: Path, tmp_path: Path) -> None:
    jobs = {"TRICHORD_JOBS_DIR": str(tmp_path), "TRICHORD_MODELS_DIR": str(models_dir)}
    code = "from deploy.ray_serve import app; app({})"
    command = [sys.executable, "-c", code]
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | jobs, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "TRICHORD_JOBS_DIR: jobs belong to one server." in done.stderr
