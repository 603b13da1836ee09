"""The head of a Ray cluster on this machine, with ports and a folder of its own."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.server import free_port

_STORE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Head:
    """`environment` is that of who may use it. `process` is the leader of all of Ray's."""

    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def workers(self, title: str) -> list[int]:
        """Processes of the cluster whose title begins like this, as Ray's actors' do."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if folder.joinpath("cmdline").read_bytes().decode().startswith(f"ray::{title}"):
                    found.append(int(folder.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return [pid for pid in found if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return self.environment["RAY_AUTH_TOKEN"].encode() in environment


@contextmanager
def ray_head(*, cpus: int = 2, **more: str) -> Iterator[Head]:
    """`more` is added to the environment of Ray's processes."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_BACKEND_LOG_LEVEL": "fatal",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # else whatever runs beside the tests goes first
        }
        options = {
            "port": port,
            "num-cpus": cpus,
            "object-store-memory": _STORE_BYTES,
            "temp-dir": folder,
            "include-dashboard": "false",
            "dashboard-agent-listen-port": free_port(),
            "dashboard-agent-grpc-port": free_port(),
            "runtime-env-agent-port": free_port(),
            "metrics-export-port": free_port(),
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--{name}={value}" for name, value in options.items()]
        log = Path(folder, "start.log")
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env=os.environ | environment | more, start_new_session=True
            )
        try:
            _wait(process, log)
            yield Head(environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"}, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_s = time.monotonic() + 120
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_s, log.read_text()
        time.sleep(0.1)
