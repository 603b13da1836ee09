"""The admin port: metrics and versions are there only, and it tells a blocked server from a busy one."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.api.admin_port import admin_app
from app.api.health import Vitals
from app.api.heartbeat import Heartbeat
from app.api.protection import Protection
from app.api.stopping import Stopping
from app.metrics import Metrics
from app.runtime.session import Device
from app.serving.engine import Engine, Limits
from app.serving.loading import loader
from app.serving.observers import Observers
from app.serving.plan import Plan
from app.serving.repository import Repository
from tests import raw, tiny
from tests.server import Server, free_port, serving


@pytest.fixture(scope="module")
def ports(models_dir: Path) -> Iterator[tuple[Server, str]]:
    """A server, and the URL of its admin port."""
    admin = free_port()
    with serving(models_dir, admin_port=admin) as server:
        yield server, f"http://127.0.0.1:{admin}"


def test_metrics_and_versions_are_on_the_admin_port_only(ports: tuple[Server, str]) -> None:
    server, admin = ports
    server.predict(tiny.row(1))
    for method, path in (
        ("GET", "/metrics"),
        ("GET", "/v1/admin/models"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/tiny/load"),
    ):
        assert httpx.request(method, server.url + path).status_code == 404
        assert httpx.request(method, admin + path).status_code == 200
    assert 'route="/v1/predict"' in httpx.get(f"{admin}/metrics").text
    assert httpx.post(f"{admin}/v1/predict").status_code == 404


def test_probes_are_on_both_ports(ports: tuple[Server, str]) -> None:
    server, admin = ports
    for url in (server.url, admin):
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}


def test_the_admin_port_is_guarded_too(ports: tuple[Server, str]) -> None:
    port = int(ports[1].rpartition(":")[2])
    [reply] = raw.exchange(port, b"GET /metrics HTTP/1.1\nHost: x\n\n")
    assert (reply.status, reply.code) == (400, "bad_request")


def test_the_admin_port_answers_until_the_end(models_dir: Path) -> None:
    admin = free_port()
    with serving(models_dir, admin_port=admin, drain_seconds=1) as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert httpx.get(f"http://127.0.0.1:{admin}/readyz").json()["code"] == "draining"
        assert httpx.get(f"http://127.0.0.1:{admin}/healthz").status_code == 200
        assert server.process.wait(5) == 0


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_blocked_loop_is_told_from_a_busy_one(models_dir: Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        heartbeat = Heartbeat(clock=clock)
        async with engine() as running, heartbeat.beating():
            repository = Repository(models_dir, loader(device=Device("cpu"), threads=1), plan=Plan())
            vitals = Vitals(running, repository, Stopping(), heartbeat, dead_s=30)
            metrics = Metrics()
            protection = Protection(metrics, vitals.stopping, key_file=None, rate=None, cors_origins=())
            transport = httpx.ASGITransport(admin_app(vitals, metrics, protection))
            async with httpx.AsyncClient(transport=transport, base_url="http://admin") as admin:
                clock.now_s = 4.9
                assert (await admin.get("/healthz")).status_code == 200, "busy"
                clock.now_s = 5.1
                blocked = await admin.get("/healthz")
                assert (blocked.status_code, blocked.json()["code"]) == (503, "not_ready")
                await asyncio.sleep(0.5)  # the loop turns, and its heart beats
                assert (await admin.get("/healthz")).status_code == 200

    asyncio.run(scenario())


def engine() -> Engine:
    limits = Limits(max_batch_size=1, max_rows=1, max_bytes=1, hang_s=10)
    return Engine(limits, decode_threads=1, observer=Observers())
