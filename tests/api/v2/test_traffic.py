"""Requests of many rows among others: harmed by nobody and harming nobody, refused when there is no place."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from app.bundle.manifest import MODALITIES, subsets
from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from tests import tiny
from tests.api.v2.requests import HEADER, INFER, error, media, post, texts
from tests.server import Server, form, serving

SUBSETS = [tuple(name.split("+")) for name in subsets(MODALITIES)]
ROWS = [tiny.row(seed, SUBSETS[seed % 7]) for seed in range(60)]
BROKEN = RawInputs(image=b"\xff\xd8\xff broken")


def body_of(rows: list[RawInputs]) -> tuple[bytes, dict[str, str]]:
    body, length = triton.InferenceServerClient.generate_request_body(media(rows))
    return body, {HEADER: str(length)}


def probabilities(response: httpx.Response) -> np.ndarray:
    """The first output that the client's default request is answered with."""
    length = int(response.headers[HEADER])
    first = httpx.Response(200, content=response.content[:length]).json()["outputs"][0]
    assert first["name"] == "probabilities"
    return np.frombuffer(response.content, "<f4", np.prod(first["shape"]), length).reshape(first["shape"])


def test_many_at_once_are_answered_as_alone(server: Server, predictor: Predictor) -> None:
    expected = np.stack(
        [out.probabilities for out in predictor.run([predictor.prepare(row) for row in ROWS])]
    )

    async def infer(http: httpx.AsyncClient, start: int, count: int) -> None:
        body, headers = body_of(ROWS[start : start + count])
        response = await http.post(INFER, content=body, headers=headers)
        assert response.status_code == 200, response.text
        np.testing.assert_allclose(probabilities(response), expected[start : start + count], atol=1e-5)

    async def fail(http: httpx.AsyncClient, start: int) -> None:
        body, headers = body_of([ROWS[start], BROKEN])
        response = await http.post(INFER, content=body, headers=headers)
        assert response.status_code == 400
        assert error(response).startswith("Row 1:")

    async def predict(http: httpx.AsyncClient, index: int) -> None:
        answer = (await http.post("/v1/predict", files=form(ROWS[index]))).json()
        assert answer["probability"] == pytest.approx(expected[index].max(), abs=1e-5)

    async def everyone() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            await asyncio.gather(
                *(infer(http, start, 1 + start % 9) for start in range(0, 50, 2)),
                *(fail(http, start) for start in range(0, 50, 5)),
                *(predict(http, index) for index in range(0, 60, 3)),
            )

    asyncio.run(everyone())
    after = server.metrics()
    assert after["trichord_open_rows"] == 0
    assert after["trichord_open_bytes"] == 0


def test_clients_that_leave_free_their_rows(server: Server) -> None:
    body, headers = body_of([tiny.row(seed) for seed in range(100)])

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=0.03) as http:
            with pytest.raises(httpx.TimeoutException):
                await http.post(INFER, content=body, headers=headers)

    async def together() -> None:
        await asyncio.gather(*(leave() for _ in range(3)))

    asyncio.run(together())
    give_up_s = time.monotonic() + 5
    while server.metrics()["trichord_open_rows"]:
        assert time.monotonic() < give_up_s, "rows of clients that left stay in"
        time.sleep(0.05)
    assert post(server, texts("sept")).status_code == 200


def test_without_a_place_the_body_is_not_read(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n".encode()
    with serving(tmp_path, max_rows=2) as server:
        assert post(server, texts("un", "deux", "trois")).status_code == 400, "never, not later"
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(head)
            while not server.metrics()["trichord_open_rows"]:
                time.sleep(0.01)
            assert post(server, texts("un")).status_code == 200
            refused = post(server, texts("un", "deux"))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "Try again" in error(refused)


def test_compressed_bodies_are_counted_as_large_as_they_are(server: Server) -> None:
    """Nothing is left behind in the count of bytes either way."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        rows = media([RawInputs(text=b"a" * 900)] * 200)
        result = client.infer("tiny", rows, request_compression_algorithm="gzip")
    assert result.as_numpy("logits").shape == (200, 3)
    assert server.metrics()["trichord_open_bytes"] == 0


def test_what_a_body_unpacks_to_is_held_against_the_memory_for_bodies(tmp_path: Path) -> None:
    """Also before it is complete: four that are on their way fill 8 MiB, and a fifth is told so."""
    tiny.write(tmp_path)
    unpacked = 2 * 2**20 - 100
    packed = gzip.compress(b" " * unpacked)
    assert len(packed) < 2**12
    head = (
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    )
    with serving(tmp_path, max_megabytes=8) as server, ExitStack() as stack:
        for count in (1, 2, 3, 4):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            slow.sendall(head.encode() + packed[:-1])
            give_up_s = time.monotonic() + 20
            while (held := server.metrics()["trichord_open_bytes"]) < count * (unpacked - 2**12):
                assert time.monotonic() < give_up_s, f"{held} bytes are held"
                time.sleep(0.02)
        refused = post(server, packed, **{"content-encoding": "gzip"})
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
