"""A real HTTP server that answers by a script: faults that a healthy server does not show."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.api.errors import CATALOGUE


@dataclass(frozen=True)
class Say:
    """An answer. With `cut_at`, only so many bytes of its body are sent and the connection ends."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None


@dataclass(frozen=True)
class Cut:
    """The connection ends without an answer."""


@dataclass(frozen=True)
class Stall:
    """Bytes of the head of an answer, then nothing until the server closes."""

    said: bytes = b""


@dataclass(frozen=True)
class Asked:
    path: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float


def problem(code: str, **more: Any) -> dict[str, Any]:
    entry = CATALOGUE[code]
    return {
        "type": f"urn:trichord:error:{code}", "title": entry.title, "status": entry.status,
        "detail": "So it is.", "code": code, **more,
    }  # fmt: skip


def refusal(code: str, *, request_id: str = "from-the-server", **headers: str) -> Say:
    body = problem(code, request_id=request_id, part="text")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Say(CATALOGUE[code].status, json.dumps(body).encode(), named)


PREDICTION: dict[str, Any] = {
    "request_id": "abc",
    "model": {"name": "tiny", "version": 1, "digest": "d" * 64},
    "label": "red",
    "probability": 0.75,
    "top": [{"label": "red", "probability": 0.75}],
    "modalities": {"used": ["text"], "missing": ["image", "audio"]},
    "by_modality": {"text": {"label": "red", "probability": 0.75}},
    "warnings": [],
    "timings_ms": {"decode": 1.0, "queue": 2.0, "run": 3.0, "total": 7.0},
    "batch_size": 1,
}
PREDICTED = Say(200, json.dumps(PREDICTION).encode())


class Scripted:
    """Answers with each step of its script once, then with the last one again and again."""

    def __init__(self, *script: Say | Cut | Stall) -> None:
        self._script = list(script)
        self._lock = threading.Lock()
        self.asked: list[Asked] = []
        self.is_over = threading.Event()
        self.url = ""

    def step(self, asked: Asked) -> Say | Cut | Stall:
        with self._lock:
            self.asked.append(asked)
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]


@contextmanager
def scripted(*script: Say | Cut | Stall) -> Iterator[Scripted]:
    plan = Scripted(*script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            match plan.step(Asked(self.path, headers, body, time.monotonic())):
                case Say() as say:
                    self._say(say)
                case Cut():
                    self.close_connection = True
                case Stall(said):
                    self.wfile.write(said)
                    plan.is_over.wait(30)
                    self.close_connection = True

        do_GET = do_POST  # noqa: N815 - a name of the library

        def _say(self, say: Say) -> None:
            self.send_response(say.status)
            for name, value in {"content-length": str(len(say.body)), **say.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(say.body[: say.cut_at])
            self.close_connection |= say.cut_at is not None

        def log_message(self, *_: object) -> None:
            """Not on the tests' standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    plan.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield plan
    finally:
        plan.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()
