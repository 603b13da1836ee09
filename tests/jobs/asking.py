"""Jobs as a caller sees them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from tests import tiny
from tests.server import Server

LINES = {"Content-Type": "application/x-ndjson"}
POISON = base64.b64encode(b"no picture").decode()


def row(number: int, **more: Any) -> dict[str, Any]:
    """A row of its own: the answer to it differs from that to others."""
    shade = number % 256
    picture = base64.b64encode(tiny.png((shade, 255 - shade, 40))).decode()
    return {"id": f"r{number}", "image": picture, "text": f"word {number}"} | more


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(one)}\n" for one in rows).encode()


class Asker:
    """A caller, with a key where the server wants one."""

    def __init__(self, server: Server, *, key: str | None = None) -> None:
        self._url = server.url
        self._headers = {} if key is None else {"X-API-Key": key}

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        return httpx.request(
            method, self._url + path, headers=self._headers | dict(headers or {}), timeout=30, **body
        )

    def submit(self, body: bytes, *, query: str = "", **headers: str) -> dict[str, Any]:
        made = self.ask("POST", f"/v1/jobs{query}", content=body, headers=LINES | headers)
        assert made.status_code == 202, made.text
        job: dict[str, Any] = made.json()
        assert made.headers["location"] == f"/v1/jobs/{job['id']}"
        return job

    def name(self, manifest: str, **fields: Any) -> httpx.Response:
        return self.ask("POST", "/v1/jobs", json={"manifest": manifest, **fields})

    def job(self, job_id: str) -> dict[str, Any]:
        found = self.ask("GET", f"/v1/jobs/{job_id}")
        assert found.status_code == 200, found.text
        job: dict[str, Any] = found.json()
        return job

    def until(self, job_id: str, *states: str, seconds: float = 30) -> dict[str, Any]:
        """The job, in one of these states."""
        give_up_s = time.monotonic() + seconds
        while (job := self.job(job_id))["state"] not in states:
            assert time.monotonic() < give_up_s, f"it is still {job}"
            time.sleep(0.02)
        return job

    def done(self, job_id: str) -> int:
        rows = self.job(job_id)["rows"]
        return int(rows["scored"] + rows["failed"])

    def output(self, job_id: str, what: str) -> list[dict[str, Any]]:
        """`what` is results or errors."""
        found = self.ask("GET", f"/v1/jobs/{job_id}/{what}")
        assert found.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in found.text.splitlines()]


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]
