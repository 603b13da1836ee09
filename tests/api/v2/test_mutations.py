"""Bodies that were good and then changed: never a 5xx, never an answer in another form."""

from __future__ import annotations

import random

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from app.runtime.predictor import Predictor
from tests import tiny
from tests.api.v2.requests import HEADER, INFER, error, media, tensor
from tests.server import Server

ROUNDS = 700


def bodies(predictor: Predictor) -> list[tuple[bytes, int]]:
    """Good requests of every kind, with the length of their JSON."""
    sample = predictor.prepare(tiny.row(2))
    prepared = [
        tensor("image", sample.image[None], "UINT8"),
        tensor("text", sample.text[None], "INT32"),
        tensor("audio", sample.audio[None], "FP32"),
    ]
    plain = [tensor("text", np.array([["sept"]], object), "BYTES", binary=False)]
    outputs = [triton.InferRequestedOutput("probabilities", binary_data=False, class_count=2)]
    made = [
        triton.InferenceServerClient.generate_request_body(media([tiny.row(1), tiny.row(3, ("text",))])),
        triton.InferenceServerClient.generate_request_body(prepared, priority=2, timeout=3_000_000),
        triton.InferenceServerClient.generate_request_body(plain, outputs=outputs),
    ]
    return [(body, length or len(body)) for body, length in made]


def mutated(body: bytes, rng: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at : at + rng.randint(1, 8)] = b""
            case 2:
                changed[at:at] = rng.choice(
                    [b"0", b"-", b"[", b"]", b'"', b"e99", b"\0", b"\xff\xff\xff\xff"]
                )
            case _:
                changed[at : at + 4] = changed[at : at + 4] * 2
        if not changed:
            return b""
    return bytes(changed)


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["media", "prepared", "json"])
def test_mutated_bodies_are_answered_or_refused(server: Server, predictor: Predictor, kind: int) -> None:
    body, length = bodies(predictor)[kind]
    rng = random.Random(kind)  # noqa: S311 - repeatable, not secret
    statuses = set()
    with httpx.Client(base_url=server.url, timeout=30) as http:
        assert http.post(INFER, content=body, headers={HEADER: str(length)}).status_code == 200
        for _ in range(ROUNDS):
            whole = mutated(body, rng)
            if rng.random() < 0.5:  # keep the JSON, so that the tensors are reached
                whole = body[:length] + mutated(body[length:] or b" ", rng)
            response = http.post(INFER, content=whole, headers={HEADER: str(length)})
            statuses.add(response.status_code)
            assert response.status_code in (200, 400, 413, 504), (response.status_code, response.text)
            if response.status_code != 200:
                assert error(response)
        assert http.get("/v2/health/ready").status_code == 200
    assert {200, 400} <= statuses, "some changes are harmless, and most are not"


def test_every_truncation_of_a_body_is_refused(server: Server, predictor: Predictor) -> None:
    body, length = bodies(predictor)[0]
    with httpx.Client(base_url=server.url, timeout=30) as http:
        for end in range(0, len(body), 7):
            response = http.post(INFER, content=body[:end], headers={HEADER: str(length)})
            assert response.status_code == 400, end
            assert error(response)
