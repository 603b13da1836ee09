"""POST /v1/predict/stream over raw connections: sending and receiving at once, for as long as one likes."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.lines import lines
from tests import tiny
from tests.api.test_batch import BAD_ROWS, ROWS, assert_same, json_row
from tests.server import Server, serving


@dataclass
class Stream:
    """One request that is being written while its answer is being read."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes = b""

    async def send(self, *rows: object) -> None:
        await self.send_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))

    async def send_bytes(self, body: bytes) -> None:
        self.writer.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
        await self.writer.drain()

    async def finish(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def receive(self) -> dict[str, Any] | None:
        """The next line, which the server sends as one chunk; None at the end."""
        if not self.head:
            self.head = await self.reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in self.head.splitlines()[0], self.head
            assert b"application/x-ndjson" in self.head
        size = int(await self.reader.readline(), 16)
        body = await self.reader.readexactly(size + 2)
        return json.loads(body) if size else None

    async def rest(self) -> list[dict[str, Any]]:
        answers = []
        while (answer := await self.receive()) is not None:
            answers.append(answer)
        return answers


@asynccontextmanager
async def streaming(server: Server, *, query: str = "", deadline_ms: int = 60_000) -> AsyncIterator[Stream]:
    raw = socket.socket()
    for side in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # small, so that what waits is not hidden in the kernel
        raw.setsockopt(socket.SOL_SOCKET, side, 2**16)
    raw.connect(("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=2**16)
    writer.write(
        f"POST /v1/predict/stream{query} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: application/x-ndjson\r\nX-Request-Deadline-Ms: {deadline_ms}\r\n\r\n".encode()
    )
    try:
        yield Stream(reader, writer)
    finally:
        writer.close()


def play(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def in_time() -> Any:
        async with asyncio.timeout(120):
            return await scenario()

    return asyncio.run(in_time())


def exchange(server: Server, rows: Iterable[object], *, query: str = "") -> list[dict[str, Any]]:
    """Send and receive at once."""

    async def scenario() -> list[dict[str, Any]]:
        async with streaming(server, query=query) as stream:
            receiving = asyncio.create_task(stream.rest())
            for row in rows:
                await (stream.send_bytes(row) if isinstance(row, bytes) else stream.send(row))
            await stream.finish()
            return await receiving

    answers: list[dict[str, Any]] = play(scenario)
    return sorted(answers, key=lambda answer: answer["index"])


def test_every_row_is_answered_as_it_is_alone(server: Server) -> None:
    alone = [server.predict(raw, top_k="2").json() for raw in ROWS]
    answers = exchange(server, (json_row(raw, id=str(n)) for n, raw in enumerate(ROWS)), query="?top_k=2")
    assert [answer["index"] for answer in answers] == list(range(len(ROWS)))
    for number, (answer, expected) in enumerate(zip(answers, alone, strict=True)):
        assert (answer["id"], answer["status"]) == (str(number), 200)
        assert answer["model"] == expected["model"]
        assert_same(answer, expected)


def test_an_answer_comes_while_the_request_goes_on(server: Server) -> None:
    async def scenario() -> None:
        async with streaming(server) as stream:
            for index in range(5):
                await stream.send({"text": "sette"})
                answer = await stream.receive()
                assert answer is not None
                assert (answer["index"], answer["status"]) == (index, 200)
            await stream.finish()
            assert await stream.receive() is None

    play(scenario)


def test_memory_stays_flat_however_many_rows(server: Server) -> None:
    def stream(rows: int) -> float:
        texts = [f"row {number % 100}" for number in range(rows)]
        answers = exchange(server, ({"id": str(n), "text": text} for n, text in enumerate(texts)))
        assert [answer["id"] for answer in answers] == [str(number) for number in range(rows)]
        assert {answer["status"] for answer in answers} == {200}
        return server.metrics()["process_resident_memory_bytes"]

    before = stream(500)
    assert stream(5000) - before < 20 * 2**20
    assert server.metrics()["trichord_open_rows"] == 0


def test_bad_lines_are_told_and_the_stream_goes_on(server: Server) -> None:
    broken = [b"{\n", b"not json\n", b'{"text": NaN}\n', b"\xff\n", b"[" * 10_000 + b"\n"]
    rows = [{"text": "a"}, *(bad for bad, *_ in BAD_ROWS), *broken, b"\n", b"  \r\n", {"text": "b"}]
    answers = exchange(server, rows)
    expected = [200, *(status for _, status, *_ in BAD_ROWS), *[400] * len(broken), 200]
    assert [answer["status"] for answer in answers] == expected
    codes = [answer["error"]["code"] for answer in answers if "error" in answer]
    assert codes == [*(code for *_, code, _ in BAD_ROWS), *["bad_request"] * len(broken)]


def test_a_line_that_is_too_long_is_refused_without_being_kept(server: Server) -> None:
    before = server.metrics()["process_resident_memory_bytes"]
    endless = (bytes([65]) * 2**20 for _ in range(200))
    answers = exchange(server, [{"text": "a"}, *endless, b"\n", {"text": "b"}])
    assert [answer["status"] for answer in answers] == [200, 413, 200]
    assert answers[1]["error"]["code"] == "body_too_large"
    assert server.metrics()["process_resident_memory_bytes"] - before < 50 * 2**20


def test_a_client_that_does_not_read_is_not_read_from(server: Server) -> None:
    """What it has sent stops growing; once it reads, every row is answered."""

    async def scenario() -> tuple[int, list[dict[str, Any]]]:
        async with streaming(server) as stream:
            sent = 0

            async def send() -> None:
                nonlocal sent
                while sent < 200_000:
                    await stream.send(*({"text": "a" * 900} for _ in range(100)))
                    sent += 100

            sending = asyncio.create_task(send())
            known = -1
            while known != sent:
                known = sent
                await asyncio.sleep(1)
            assert not sending.done(), "the server took 200,000 rows from a client that reads none"
            assert server.metrics()["trichord_open_rows"] <= 64
            receiving = asyncio.create_task(stream.rest())
            sending.cancel()
            await asyncio.wait({sending})
            stream.writer.write(b"0\r\n\r\n")
            return sent, await receiving

    sent, answers = play(scenario)
    assert len(answers) in (sent, sent + 100), "the last hundred were written or not when sending stopped"
    assert {answer["status"] for answer in answers} == {200}


def test_rows_wait_for_a_place_instead_of_failing(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    with serving(tmp_path, max_rows=2) as server:

        async def both() -> list[list[dict[str, Any]]]:
            async def one() -> list[dict[str, Any]]:
                async with streaming(server) as stream:
                    receiving = asyncio.create_task(stream.rest())
                    await stream.send(*(json_row(raw) for raw in ROWS))
                    await stream.finish()
                    return await receiving

            return await asyncio.gather(one(), one())

        for answers in play(both):
            assert [answer["status"] for answer in answers] == [200] * len(ROWS)


def test_a_client_that_leaves_frees_its_rows(server: Server) -> None:
    async def leave() -> None:
        async with streaming(server) as stream:
            await stream.send(*(json_row(raw) for raw in ROWS))
            await stream.receive()

    for _ in range(5):
        play(leave)
        give_up_s = time.monotonic() + 20
        while server.metrics()["trichord_open_rows"]:
            assert time.monotonic() < give_up_s
    assert server.predict(tiny.row(1)).status_code == 200
    assert not [line for line in server.log_lines() if "exception" in line]


@pytest.mark.parametrize(
    ("query", "content_type", "status", "code"),
    [
        ("", "application/json", 415, "unsupported_media_type"),
        ("?model=none", "application/x-ndjson", 404, "model_not_found"),
        ("?version=9", "application/x-ndjson", 404, "model_not_found"),
        ("?top_k=4", "application/x-ndjson", 422, "invalid_parameter"),
        ("?top_k=1&top_k=2", "application/x-ndjson", 422, "invalid_parameter"),
        ("?rows=1", "application/x-ndjson", 422, "invalid_parameter"),
        ("?cache=maybe", "application/x-ndjson", 422, "invalid_parameter"),
    ],
)
def test_what_is_wrong_for_every_row_is_refused_at_once(
    server: Server, query: str, content_type: str, status: int, code: str
) -> None:
    response = httpx.post(
        f"{server.url}/v1/predict/stream{query}", content=b"{}\n", headers={"content-type": content_type}
    )
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_last_line_needs_no_end_and_an_empty_stream_no_row(server: Server) -> None:
    assert [answer["status"] for answer in exchange(server, [b'{"text": "a"}'])] == [200]
    assert exchange(server, [b"\n"]) == []


@given(st.lists(st.text("ab\n", max_size=12).map(str.encode)), st.integers(1, 6))
def test_lines_are_the_same_however_they_are_cut(pieces: list[bytes], most: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collect() -> list[bytes | None]:
        return [line async for line in lines(chunks(), most=most)]

    whole = b"".join(pieces).split(b"\n")
    expected = [line if len(line) <= most else None for line in whole if line]
    assert asyncio.run(collect()) == expected
