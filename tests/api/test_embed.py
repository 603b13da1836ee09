"""POST /v1/embed on a real server: the vectors that the graphs compute, in both encodings."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import pytest

from app.bundle.manifest import MODALITIES, Modality, subsets
from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from tests import tiny
from tests.server import Server, form

SUBSETS = [tuple(name.split("+")) for name in subsets(MODALITIES)]


def embed(server: Server, raw: RawInputs, **fields: str) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/embed", files=form(raw, **fields), timeout=30)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_subset_is_embedded(server: Server, predictor: Predictor, subset: tuple[Modality, ...]) -> None:
    raw = tiny.row(11, subset)
    response = embed(server, raw)
    assert response.status_code == 200, response.text
    answer = response.json()
    [outputs] = predictor.run([predictor.prepare(raw)])
    np.testing.assert_allclose(answer["embedding"], outputs.embedding, atol=1e-6)
    assert set(answer["by_modality"]) == set(subset)
    for name, vector in zip(MODALITIES, outputs.features, strict=True):
        if name in subset:
            np.testing.assert_allclose(answer["by_modality"][name], vector, atol=1e-6)
    np.testing.assert_allclose(
        sum(map(np.array, answer["by_modality"].values())), outputs.embedding, atol=1e-6
    )
    assert answer["modalities"]["used"] == list(subset)
    assert answer["request_id"] == response.headers["x-request-id"]
    assert (answer["model"]["name"], answer["model"]["version"]) == ("tiny", 1)
    assert set(answer["timings_ms"]) == {"decode", "queue", "run", "total"}


def test_base64_holds_the_same_numbers(server: Server) -> None:
    raw = tiny.row(3)
    numbers, packed = (
        embed(server, raw, encoding="float").json(),
        embed(server, raw, encoding="base64").json(),
    )
    for vector, body in (
        (numbers["embedding"], packed["embedding"]),
        *((numbers["by_modality"][name], packed["by_modality"][name]) for name in MODALITIES),
    ):
        unpacked = np.frombuffer(base64.b64decode(body, validate=True), dtype="<f4")
        np.testing.assert_array_equal(unpacked, np.array(vector, np.float32))


def test_what_is_wrong_is_refused_as_by_predict(server: Server) -> None:
    raw = tiny.row(1, ("text",))
    for fields, code in (
        ({"encoding": "hex"}, "invalid_parameter"),
        ({"top_k": "1"}, "invalid_parameter"),
        ({"model": "none"}, "model_not_found"),
    ):
        assert embed(server, raw, **fields).json()["code"] == code
    assert embed(server, RawInputs(image=b"\xff\xd8\xff broken")).json()["code"] == "invalid_image"
    assert embed(server, RawInputs(), encoding="float").json()["code"] == "no_modality"
