"""Many clients at once: every answer belongs to its question, whatever shared its batch."""

from __future__ import annotations

import asyncio
import itertools
import random

import httpx
import pytest

from app.bundle.manifest import MODALITIES, subsets
from tests import tiny
from tests.server import Server, form

SUBSETS = [tuple(name.split("+")) for name in subsets(MODALITIES)]
CLIENTS = 32
REQUESTS = 20  # of each client
ROWS = [tiny.row(seed, SUBSETS[seed % 7]) for seed in range(70)]


def test_answers_in_company_equal_answers_alone(server: Server) -> None:
    alone = [server.predict(row).json() for row in ROWS]
    before = server.metrics()

    async def client(seed: int) -> int:
        chosen = random.Random(seed).choices(range(len(ROWS)), k=REQUESTS)  # noqa: S311
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for index in chosen:
                response = await http.post("/v1/predict", files=form(ROWS[index]))
                assert response.status_code == 200, response.text
                answer = response.json()
                assert answer["label"] == alone[index]["label"]
                assert answer["modalities"] == alone[index]["modalities"]
                expected = [one["probability"] for one in alone[index]["top"]]
                assert [one["probability"] for one in answer["top"]] == pytest.approx(expected, abs=1e-5)
        return len(chosen)

    async def everyone() -> list[int]:
        return await asyncio.gather(*map(client, range(CLIENTS)))

    assert sum(asyncio.run(everyone())) == CLIENTS * REQUESTS
    after = server.metrics()
    rows, runs = (
        after[f'trichord_batch_size_{kind}{{model="tiny",version="1"}}']
        - before[f'trichord_batch_size_{kind}{{model="tiny",version="1"}}']
        for kind in ("sum", "count")
    )
    assert rows == CLIENTS * REQUESTS
    assert rows / runs > 1, "requests that waited together ran together"


def test_bad_requests_among_good_ones_fail_alone(server: Server) -> None:
    bad = [("image", ("d.jpg", b"\xff\xd8\xff broken"))]

    async def one(http: httpx.AsyncClient, index: int) -> int:
        files = bad if index == 13 else form(ROWS[index])
        return (await http.post("/v1/predict", files=files)).status_code

    async def together() -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            return await asyncio.gather(*(one(http, index) for index in range(32)))

    statuses = asyncio.run(together())
    assert [index for index, status in enumerate(statuses) if status != 200] == [13]
    assert statuses[13] == 422


def test_clients_that_leave_do_not_harm_those_who_stay(server: Server) -> None:
    async def leave(index: int) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=0.004) as http:
            try:
                await http.post("/v1/predict", files=form(ROWS[index]))
            except httpx.TimeoutException:
                return

    async def stay(index: int) -> int:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            return (await http.post("/v1/predict", files=form(ROWS[index]))).status_code

    async def mixed() -> list[object]:
        calls = itertools.chain.from_iterable((leave(index), stay(index)) for index in range(40))
        return await asyncio.gather(*calls)

    assert [status for status in asyncio.run(mixed()) if status is not None] == [200] * 40
