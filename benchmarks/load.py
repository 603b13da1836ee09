"""A closed-loop load generator: C connections, each sending its next request when the last is answered.

Requests are encoded once, so that the client costs little beside the server it shares the machine with.
Every answer is compared with the same row asked alone: only right answers count.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.bundle.sample import RawInputs

_BOUNDARY = b"trichord-benchmark-boundary"


@dataclass(frozen=True, slots=True)
class Load:
    """What one run gave."""

    right: int
    wrong: int
    seconds: float
    latencies_s: tuple[float, ...]  # of the right answers, ascending
    mean_batch_size: float  # as the rows saw it: a run of n rows counts n times

    @property
    def rows_per_second(self) -> float:
        return self.right / self.seconds

    def latency_s(self, quantile: float) -> float:
        return self.latencies_s[min(int(quantile * len(self.latencies_s)), len(self.latencies_s) - 1)]


def encode(raw: RawInputs, *, host: str, deadline_ms: int | None = None) -> bytes:
    """A whole HTTP request."""
    body = b""
    for name in raw.present:
        body += b'--%s\r\nContent-Disposition: form-data; name="%s"' % (_BOUNDARY, name.encode())
        body += b'; filename="f"\r\n\r\n' if name != "text" else b"\r\n\r\n"
        body += getattr(raw, name) + b"\r\n"
    body += b"--%s--\r\n" % _BOUNDARY
    deadline = f"X-Request-Deadline-Ms: {deadline_ms}\r\n" if deadline_ms else ""
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n{deadline}"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\n\r\n"
    )
    return head.encode() + body


async def run_load(port: int, rows: Sequence[RawInputs], *, connections: int, seconds: float) -> Load:
    """Ask every row alone, then all at once for `seconds`."""
    requests = [encode(row, host="127.0.0.1") for row in rows]
    async with await Connection.open(port) as lone:
        expected = [await lone.ask(request) for request in requests]
    started_s = time.perf_counter()
    clients = [
        _client(port, requests, expected, seed=seed, until_s=started_s + seconds)
        for seed in range(connections)
    ]
    observed = [one for client in await asyncio.gather(*clients) for one in client]
    elapsed_s = time.perf_counter() - started_s
    right = [one for one in observed if one.is_right]
    return Load(
        right=len(right),
        wrong=len(observed) - len(right),
        seconds=elapsed_s,
        latencies_s=tuple(sorted(one.latency_s for one in right)),
        mean_batch_size=sum(one.batch_size for one in right) / max(len(right), 1),
    )


@dataclass(frozen=True, slots=True)
class _Observed:
    is_right: bool
    latency_s: float
    batch_size: int


async def _client(
    port: int,
    requests: Sequence[bytes],
    expected: Sequence[tuple[int, dict[str, object]]],
    *,
    seed: int,
    until_s: float,
) -> list[_Observed]:
    choose = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    observed: list[_Observed] = []
    async with await Connection.open(port) as connection:
        while (now_s := time.perf_counter()) < until_s:
            index = choose.randrange(len(requests))
            status, answer = await connection.ask(requests[index])
            latency_s = time.perf_counter() - now_s
            is_right = status == 200 and is_same(answer, expected[index][1])
            observed.append(_Observed(is_right, latency_s, int(str(answer.get("batch_size", 0)))))
    return observed


def is_same(answer: dict[str, object], expected: dict[str, object]) -> bool:
    """Equal label, and a probability within 1e-5."""
    difference = abs(float(str(answer["probability"])) - float(str(expected["probability"])))
    return answer["label"] == expected["label"] and difference <= 1e-5


class Connection:
    """One keep-alive connection that speaks just enough HTTP/1.1 to be cheap."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    @property
    def is_closed(self) -> bool:
        return self._reader.at_eof()

    async def ask(self, request: bytes) -> tuple[int, dict[str, object]]:
        status, answer, _ = await self.ask_all(request)
        return status, answer

    async def ask_all(self, request: bytes) -> tuple[int, dict[str, object], bytes]:
        """Status, JSON body and raw headers."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        length = next(int(line[15:]) for line in lines if line.lower().startswith("content-length:"))
        body = await self._reader.readexactly(length)
        return int(lines[0].split()[1]), json.loads(body), head
