"""Told to stop, a server is unready at once, answers who is in, and ends with code 0."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests import raw, tiny
from tests.server import Server, form, serving

CLIENTS = 16
UPLOAD = (
    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
)


@dataclass
class Outcome:
    """Request ids by what their client saw."""

    answered: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)  # with another status than 200
    failed: set[str] = field(default_factory=set)  # without an answer
    is_flowing: asyncio.Event = field(default_factory=asyncio.Event)


async def client(server: Server, name: str, outcome: Outcome, stop: asyncio.Event) -> None:
    """Ask again and again, until told to stop or nobody listens any more."""
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        for index in range(10_000):
            request_id = f"{name}.{index}"
            if stop.is_set():
                return
            try:
                files = form(tiny.row(index % 50))
                response = await http.post("/v1/predict", files=files, headers={"x-request-id": request_id})
            except httpx.ConnectError:
                return
            except httpx.TransportError:
                outcome.failed.add(request_id)
            else:
                (outcome.answered if response.status_code == 200 else outcome.refused).add(request_id)
                if len(outcome.answered) == 2 * CLIENTS:
                    outcome.is_flowing.set()


async def stopped_under_load(server: Server, *, heed_readiness: bool) -> Outcome:
    outcome, stop = Outcome(), asyncio.Event()
    calls = [asyncio.create_task(client(server, str(name), outcome, stop)) for name in range(CLIENTS)]
    await outcome.is_flowing.wait()
    server.process.send_signal(signal.SIGTERM)
    async with httpx.AsyncClient(base_url=server.url) as probe:
        while heed_readiness and (await probe.get("/readyz")).status_code == 200:
            pass
    if heed_readiness:
        stop.set()
    await asyncio.gather(*calls)
    return outcome


@pytest.mark.parametrize("heed_readiness", [True, False])
def test_no_accepted_request_is_lost(models_dir: Path, *, thorough: bool, heed_readiness: bool) -> None:
    """Who was let in is answered; behind a load balancer that heeds readiness, nothing fails at all."""
    for _ in range(10 if thorough else 2):
        with serving(models_dir, drain_seconds=0.5 if heed_readiness else 0) as server:
            outcome = asyncio.run(stopped_under_load(server, heed_readiness=heed_readiness))
            assert server.process.wait(10) == 0
            lines = [line for line in server.log_lines() if line.get("route") == "/v1/predict"]
        assert {line["status"] for line in lines} == {200}
        assert {line["request_id"] for line in lines} == outcome.answered
        assert not outcome.refused
        assert not (heed_readiness and outcome.failed)


def test_while_it_drains_it_is_unready_but_serves(models_dir: Path) -> None:
    with serving(models_dir, drain_seconds=1.5) as server:
        with httpx.Client(base_url=server.url) as connected:
            connected.get("/healthz")
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            probe = httpx.get(f"{server.url}/readyz")
            assert (probe.status_code, probe.json()["code"]) == (503, "draining")
            assert int(probe.headers["retry-after"]) >= 1
            for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
                assert httpx.get(server.url + path).status_code == 503, path
            for path in ("/healthz", "/v2/health/live"):
                assert httpx.get(server.url + path).status_code == 200, path
            late = connected.post("/v1/predict", files=form(tiny.row(1)))
            assert (late.status_code, late.headers["connection"]) == (200, "close")
        assert server.process.wait(5) == 0


def test_an_upload_that_does_not_end_is_answered_when_the_time_is_over(models_dir: Path) -> None:
    with serving(models_dir, shutdown_seconds=1) as server, raw.connection(server.port) as upload:
        upload.sendall(UPLOAD)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        [reply] = raw.replies(raw.received(upload))
        assert (reply.status, reply.code) == (503, "draining")
        assert server.process.wait(3) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_asked_twice_it_ends_at_once(models_dir: Path, second: signal.Signals) -> None:
    with serving(models_dir) as server, raw.connection(server.port) as upload:
        upload.sendall(UPLOAD)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None, "it waits for the upload"
        server.process.send_signal(second)
        assert server.process.wait(2) == 130


def test_a_port_that_is_taken_is_said_in_one_sentence(server: Server, models_dir: Path) -> None:
    from tests.test_cli import trichord

    done = trichord("serve", "--port", server.port, "--models", models_dir)
    assert done.returncode == 4
    assert done.stderr.startswith(f"trichord: Cannot listen at 127.0.0.1:{server.port}.")
