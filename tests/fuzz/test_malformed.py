"""Malformed forms and mutated requests: refused by the catalogue, telling nothing, harming nobody."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.api.errors import CATALOGUE
from tests import raw, tiny
from tests.fuzz.hostile import malformed_form, mutated_request
from tests.server import Server, form, serving

CONNECTIONS = 24
TELLTALE = re.compile(  # an address, a path of some machine, the name of an exception
    rb"0x[0-9a-f]{4}|/(?:home|usr|opt|tmp|root|etc|var|proc|mnt)/|\.py\b|Traceback|Exception|[A-Z]\w+Error"
)


@pytest.fixture(scope="module")
def target(models_dir: Path) -> Iterator[Server]:
    """Short deadlines: a mutated length must not keep the test waiting for a body that never comes."""
    with serving(models_dir, header_seconds=1, body_seconds=1, log_level="warning") as running:
        yield running


async def ask(port: int, sent: bytes) -> list[raw.Reply]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return raw.replies(await reader.read())
    except ConnectionError:  # what was sent after a refusal may reset it
        return []
    finally:
        writer.close()


async def barrage(server: Server, make: Callable[[int], bytes], count: int) -> tuple[Counter[str], int]:
    """What was answered how often, and how many good requests in between were answered well."""
    seeds, done, seen = iter(range(count)), asyncio.Event(), Counter[str]()

    async def attack() -> None:
        for seed in seeds:
            for reply in await ask(server.port, make(seed)):
                judge(reply, seed)
                seen[reply.code or str(reply.status)] += 1

    async def good() -> int:
        answered = 0
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            while not done.is_set():
                response = await http.post("/v1/predict", files=form(tiny.row(answered % 50)))
                assert response.status_code == 200, response.text
                answered += 1
                await asyncio.sleep(0.02)
        return answered

    behaving = asyncio.create_task(good())
    await asyncio.gather(*(attack() for _ in range(CONNECTIONS)))
    done.set()
    return seen, await behaving


def judge(reply: raw.Reply, seed: int) -> None:
    assert reply.status < 500, (seed, reply)
    assert reply.status == 200 or (
        reply.code in CATALOGUE and CATALOGUE[reply.code].status == reply.status
    ), seed
    assert not TELLTALE.search(reply.body), (seed, reply)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("make", [malformed_form, mutated_request])
def test_hostile_requests_get_catalogued_refusals_and_good_ones_their_answers(
    target: Server, make: Callable[[int], bytes], *, thorough: bool
) -> None:
    count = 10_000 if thorough else 400
    seen, answered = asyncio.run(barrage(target, make, count))
    assert sum(seen.values()) >= 0.9 * count, "nearly each got an answer; a mutated end may leave one without"
    assert len(seen) >= 6, f"the requests differ too little: {seen}"
    assert answered > 0
    assert target.predict(tiny.row(1)).status_code == 200
    assert target.metrics()["trichord_open_rows"] == 0
    assert "request failed" not in target.log.read_text()
    print(f"\n{make.__name__}: {count} sent, {answered} good ones between, {dict(seen.most_common())}")  # noqa: T201
