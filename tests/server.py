"""A real server process on a real socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.bundle.sample import RawInputs


@dataclass(frozen=True)
class Server:
    """A running server. `log` is the file that its standard error goes to."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def predict(self, raw: RawInputs, **fields: str) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/predict", files=form(raw, **fields), timeout=30)

    def metrics(self) -> dict[str, float]:
        """Each sample of GET /metrics, by its name with labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def form(raw: RawInputs, **fields: str) -> list[tuple[str, Any]]:
    """Multipart fields as httpx takes them; a name of None makes a plain field."""
    parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in fields.items()]
    if raw.image is not None:
        parts.append(("image", ("picture", raw.image)))
    if raw.text is not None:
        parts.append(("text", (None, raw.text)))
    if raw.audio is not None:
        parts.append(("audio", ("sound", raw.audio)))
    return parts


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(models_dir: Path, **settings: object) -> Iterator[Server]:
    """`trichord serve` over a models folder until the block ends; `settings` become TRICHORD_ variables."""
    port = int(str(settings.pop("port", None) or free_port()))
    given = {"port": port, "models_dir": models_dir, "log_format": "json", "workers": 1, **settings}
    said = {name: value for name, value in given.items() if value is not None}  # None: the default
    environment = {f"TRICHORD_{name.upper()}": str(value) for name, value in said.items()}
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"], env=os.environ | environment, stderr=stderr
            )
        server = Server(port=port, process=process, log=log)
        try:
            wait_ready(server)
            yield server
        finally:
            was_running = process.poll() is None
            process.send_signal(signal.SIGTERM)
            ended = process.wait(30)
        assert ended == 0 or not was_running, "told to stop, a server ends with code 0"


def wait_ready(server: Server, *, seconds: float = 30) -> None:
    give_up_s = time.monotonic() + seconds
    while time.monotonic() < give_up_s:
        assert server.process.poll() is None, f"the server ended: {server.log.read_text()}"
        try:
            if httpx.get(f"{server.url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError(f"not ready after {seconds} s: {server.log.read_text()}")
