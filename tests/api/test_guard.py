"""Slow, silent and too many connections end in time, and those who behave do not notice."""

from __future__ import annotations

import asyncio
import inspect
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tests import raw, tiny
from tests.server import Server, form, serving

HEADER_S, BODY_S = 1.0, 1.5
IDLE_S = 4
LATE_S = 2.0  # how much later than its deadline a connection may end on a busy machine
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
SIZED = HEAD + b"Content-Length: 100000\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def strict(models_dir: Path) -> Iterator[Server]:
    """A server with short deadlines, so that the tests are."""
    limits = {"header_seconds": HEADER_S, "body_seconds": BODY_S, "keep_alive_seconds": IDLE_S}
    with serving(models_dir, **limits, max_connections=200) as running:
        yield running


async def stood(port: int, first: bytes, trickle: bytes) -> tuple[float, bytes]:
    """Send `first`, then a byte of `trickle` now and then: seconds until the server closes, and its words."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started_s = time.monotonic()
    writer.write(first)

    async def drip() -> None:
        for byte in trickle:
            await asyncio.sleep(0.1)
            writer.write(bytes([byte]))

    dripping = asyncio.create_task(drip())
    try:
        said = await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        said = b""
    dripping.cancel()
    writer.close()
    return time.monotonic() - started_s, said


SLOW = {
    "silent": (b"", b"", HEADER_S, []),
    "one byte": (b"G", b"", HEADER_S, [408]),
    "slow headers": (b"GET /healthz HTTP/1.1\r\n", b"A: bcdefgh\r\n" * 40, HEADER_S, [408]),
    "a slow path": (b"GET /", b"a" * 400, HEADER_S, [408]),
    "empty lines": (b"\r\n", b"\r\n" * 200, HEADER_S, [408]),
    "silent after a request": (GET, b"", IDLE_S, [200]),
    "slow headers after a request": (GET, GET[:10], HEADER_S + 0.1, [200, 408]),
    "empty lines after a request": (GET, b"\r\n" * 200, HEADER_S + 0.1, [200, 408]),
    "no body": (SIZED, b"", BODY_S, [408]),
    "a slow body": (SIZED, b"-" * 400, BODY_S, [400]),
    "a slow form": (SIZED, b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n' * 9, BODY_S, [408]),
    "slow chunks": (CHUNKED, b"1\r\n-\r\n" * 100, BODY_S, [408]),
    "a slow chunk extension": (CHUNKED, b"5;" + b"a" * 400, BODY_S, [408]),
    "slow trailers": (CHUNKED + b"0\r\n", b"A: b\r\n" * 80, BODY_S, [408]),
    "the slow rest of a refused body": (
        HEAD + b"Content-Length: 99999999\r\n\r\n",
        b"-" * 400,
        2.0,
        [413],
    ),
}


def test_slow_connections_end_in_time_and_good_traffic_sees_no_error(strict: Server) -> None:
    """Several of each at once, beside clients that behave."""

    async def good(done: asyncio.Event, seed: int) -> set[int]:
        statuses = set()
        async with httpx.AsyncClient(base_url=strict.url, timeout=30) as http:
            while not done.is_set():
                statuses.add((await http.post("/v1/predict", files=form(tiny.row(seed)))).status_code)
                await asyncio.sleep(0.01)
        return statuses

    async def scenario() -> tuple[dict[str, list[tuple[float, bytes]]], list[set[int]]]:
        done = asyncio.Event()
        behaving = [asyncio.create_task(good(done, seed)) for seed in range(4)]
        ends = {
            kind: [asyncio.create_task(stood(strict.port, first, trickle)) for _ in range(8)]
            for kind, (first, trickle, _, _) in SLOW.items()
        }
        ended = {kind: await asyncio.gather(*tasks) for kind, tasks in ends.items()}
        done.set()
        return ended, await asyncio.gather(*behaving)

    ended, statuses = asyncio.run(scenario())
    assert statuses == [{200}] * 4
    for kind, (_, _, due_s, expected) in SLOW.items():
        for took_s, said in ended[kind]:
            assert due_s / 2 <= took_s <= due_s + LATE_S, kind  # the clocks start apart on a busy machine
            assert [reply.status for reply in raw.replies(said)] == expected, kind
    counts = strict.metrics()
    assert counts['trichord_rejected_total{code="request_timeout"}'] > 0
    assert counts["trichord_open_rows"] == 0


def test_a_body_that_keeps_coming_has_the_time_it_needs(strict: Server) -> None:
    """200 kB at less than 60 kB/s take longer than the time that a body has from the start."""
    body = b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\n" + bytes(200_000) + b"\r\n--b--\r\n"

    async def slowly() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
        writer.write(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 6_000):
            writer.write(body[start : start + 6_000])
            await asyncio.sleep(0.1)
        said = await reader.read()
        writer.close()
        return said

    started_s = time.monotonic()
    [reply] = raw.replies(asyncio.run(slowly()))
    assert time.monotonic() - started_s > BODY_S + 0.5
    assert (reply.status, reply.code) == (415, "unsupported_media_type"), (
        "read to its end: zeros are no image"
    )


def test_connections_beyond_the_cap_are_told_to_come_back(models_dir: Path) -> None:
    with serving(models_dir, max_connections=3, header_seconds=1) as server:
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/healthz").status_code == 200
            with (
                raw.connection(server.port),
                raw.connection(server.port),
                raw.connection(server.port) as last,
            ):
                [reply] = raw.replies(raw.received(last))
                assert (reply.status, reply.code) == (503, "overloaded")
                assert int(reply.headers["retry-after"]) >= 1
                assert client.get("/healthz").status_code == 200, "who is connected is served"
        time.sleep(1.5)
        assert server.predict(tiny.row(1)).status_code == 200, "there is room again"
        assert server.metrics()['trichord_rejected_total{code="overloaded"}'] == 1


def test_a_stop_waits_for_requests_but_not_for_unfinished_headers(models_dir: Path) -> None:
    with serving(models_dir) as server:
        with raw.connection(server.port) as silent, raw.connection(server.port) as half:
            half.sendall(b"GET /healthz HT")
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            assert raw.received(silent) == raw.received(half) == b""
        assert server.process.wait(4) == 0


USED = {
    HttpToolsProtocol: {
        "__init__": "(self, config, server_state, app_state, _loop=None)",
        "connection_made": "(self, transport)",
        "connection_lost": "(self, exc)",
        "data_received": "(self, data)",
        "pause_writing": "(self)",
        "resume_writing": "(self)",
        "send_400_response": "(self, msg)",
        "on_message_begin": "(self)",
        "on_url": "(self, url)",
        "on_header": "(self, name, value)",
        "on_headers_complete": "(self)",
        "on_body": "(self, body)",
        "on_message_complete": "(self)",
        "on_response_complete": "(self)",
        "shutdown": "(self)",
        "timeout_keep_alive_handler": "(self)",
        "_unset_keepalive_if_required": "(self)",
        "_unsupported_upgrade_warning": "(self)",
    },
    RequestResponseCycle: {"run_asgi": "(self, app)", "send": "(self, message)", "receive": "(self)"},
}


def test_uvicorn_is_still_the_one_that_the_guard_was_written_for() -> None:
    """When this fails, read what changed in uvicorn, and then change the guard."""
    for owner, methods in USED.items():
        for name, expected in methods.items():
            parameters = inspect.signature(getattr(owner, name)).parameters.values()
            bare = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
            assert str(inspect.Signature(bare)) == expected, name
    source = inspect.getsource(HttpToolsProtocol) + inspect.getsource(RequestResponseCycle)
    for attribute in (
        "self.connections", "self.cycle", "self.flow", "self.headers", "self.loop", "self.parser",
        "self.pipeline.appendleft((self.cycle, app))", "self.server_state.default_headers",
        "self.timeout_keep_alive_task", "self.disconnected", "self.keep_alive", "self.message_event",
        "self.response_started", "self.response_complete", "self.on_response()",
    ):  # fmt: skip
        assert attribute in source
