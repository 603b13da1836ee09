"""The embedding cache seen from outside: what it spares, by the metrics, and that answers stay the same."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.bundle.sample import RawInputs
from tests import tiny
from tests.api.test_batch import assert_same, json_row, post
from tests.server import Server, form, serving


@pytest.fixture(scope="module")
def caching(models_dir: Path) -> Iterator[Server]:
    with serving(models_dir, cache_megabytes=1) as running:
        yield running


class Grown:
    """How much metrics have grown since."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = server.metrics()

    def __getitem__(self, name: str) -> float:
        return self._server.metrics().get(name, 0) - self._before.get(name, 0)

    def runs(self, part: str) -> float:
        return self[f'trichord_part_seconds_count{{model="tiny",part="{part}",version="1"}}']

    def lookups(self, part: str, outcome: str) -> float:
        labels = f'model="tiny",outcome="{outcome}",part="{part}",version="1"'
        return self[f"trichord_cache_lookups_total{{{labels}}}"]


def test_a_known_image_with_a_new_text_costs_no_image_encoding(caching: Server) -> None:
    first = tiny.row(1, ("image", "text"))
    assert caching.predict(first, cache="true").status_code == 200
    grown = Grown(caching)
    for seed in range(2, 7):
        raw = RawInputs(image=first.image, text=tiny.row(seed).text)
        cached = caching.predict(raw, cache="true").json()
        assert cached["modalities"]["used"] == ["image", "text"]
        assert (grown.runs("image"), grown.runs("text")) == (0, seed - 1)
    assert (grown.lookups("image", "hit"), grown.lookups("text", "miss")) == (5, 5)
    assert grown["trichord_cache_entries"] == 5


def test_images_of_equal_size_keep_their_own_answers(caching: Server) -> None:
    """Each asked for three times, in turns, and beside it without the cache."""
    images = [tiny.png((0, value, 255 - value)) for value in range(0, 250, 30)]
    pairs = [one for one in itertools.combinations(images, 2) if len(one[0]) == len(one[1])]
    assert len(pairs) > 5
    for _, image in itertools.product(range(3), images):
        raw = RawInputs(image=image)
        assert_same(caching.predict(raw, cache="true").json(), caching.predict(raw).json())


def test_embeddings_and_batches_use_it_too(caching: Server) -> None:
    raw = tiny.row(50)
    caching.predict(raw, cache="true")
    grown = Grown(caching)
    files = form(raw, cache="true")
    assert httpx.post(f"{caching.url}/v1/embed", files=files).status_code == 200
    changed = dataclasses.replace(raw, text=b"another")
    rows = [json_row(raw), json_row(changed), json_row(changed)]
    answered = post(caching, {"rows": rows, "cache": True}).json()["rows"]
    assert [row["status"] for row in answered] == [200] * 3
    assert (grown.runs("image"), grown.runs("audio"), grown.runs("text")) == (0, 0, 1)
    assert grown.lookups("text", "hit") == 2
    assert grown.lookups("text", "miss") + grown.lookups("text", "joined") == 2


def test_nothing_is_kept_of_a_request_that_does_not_ask(caching: Server) -> None:
    grown = Grown(caching)
    for fields in ({}, {"cache": "false"}):
        caching.predict(tiny.row(60), **fields)
    assert grown["trichord_cache_entries"] == 0
    assert grown.runs("image") == 2


def test_what_cannot_be_decoded_is_not_kept(caching: Server) -> None:
    grown = Grown(caching)
    for _ in range(2):
        response = caching.predict(RawInputs(image=b"\xff\xd8\xff broken"), cache="true")
        assert response.json()["code"] == "invalid_image"
    assert grown["trichord_cache_entries"] == 0
    assert caching.predict(tiny.row(1), cache="yes").json()["part"] == "cache"


def test_it_keeps_to_its_bytes(caching: Server) -> None:
    grown = Grown(caching)
    rows = [{"text": f"text {number}"} for number in range(1000)]
    for _ in range(2):
        answered = [
            row["status"]
            for start in range(0, 1000, 250)
            for row in post(caching, {"rows": rows[start : start + 250], "cache": True}).json()["rows"]
        ]
        assert answered == [200] * 1000
    assert caching.metrics()["trichord_cache_bytes"] <= 2**20
    more = [{"text": f"more {number}"} for number in range(250)]
    post(caching, {"rows": more, "cache": True})
    assert grown["trichord_cache_evictions_total"] > 0
    assert caching.metrics()["trichord_cache_bytes"] <= 2**20


def test_a_server_without_a_cache_answers_the_same(server: Server) -> None:
    before = Grown(server)
    raw = tiny.row(70)
    assert_same(server.predict(raw, cache="true").json(), server.predict(raw).json())
    assert before.runs("image") == 2
    assert server.metrics()["trichord_cache_entries"] == 0
