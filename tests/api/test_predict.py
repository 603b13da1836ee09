"""POST /v1/predict on a real server: answers, refusals, and that a refusal harms nobody."""

from __future__ import annotations

import io
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.bundle.folder import Bundle
from app.bundle.manifest import MODALITIES, Modality, subsets
from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from tests import tiny
from tests.server import Server, serving

SUBSETS = [tuple(name.split("+")) for name in subsets(MODALITIES)]


def hundred_megapixels() -> bytes:
    body = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(body, "PNG")
    return body.getvalue()


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_subset_is_answered(
    server: Server, predictor: Predictor, bundle: Bundle, subset: tuple[Modality, ...]
) -> None:
    raw = tiny.row(11, subset)
    response = server.predict(raw)
    assert response.status_code == 200
    answer, expected = response.json(), predictor.predict(raw)
    assert answer["label"] == expected.best.label
    assert answer["probability"] == pytest.approx(expected.best.probability, abs=1e-6)
    assert [one["label"] for one in answer["top"]] == [one.label for one in expected.top]
    assert answer["modalities"] == {"used": list(expected.used), "missing": list(expected.missing)}
    assert {name: one["label"] for name, one in answer["by_modality"].items()} == {
        name: one.label for name, one in expected.by_modality.items()
    }
    digest = tiny.digest(bundle)
    assert answer["model"] == {"name": "tiny", "version": 1, "digest": digest}
    assert answer["request_id"] == response.headers["x-request-id"]
    assert answer["batch_size"] == 1
    assert answer["warnings"] == []
    timings = answer["timings_ms"]
    assert set(timings) == {"decode", "queue", "run", "total"}
    said = dict(one.split(";dur=") for one in response.headers["server-timing"].split(", "))
    assert {name: float(value) for name, value in said.items()} == timings
    assert timings["total"] >= timings["decode"] + timings["queue"] + timings["run"] - 0.01


def test_a_model_and_version_can_be_named(server: Server) -> None:
    raw = tiny.row(1, ("text",))
    assert server.predict(raw, model="tiny", version="1").status_code == 200
    for fields in ({"model": "huge"}, {"model": "tiny", "version": "7"}, {"model": "../tiny"}):
        response = server.predict(raw, **fields)
        assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_top_k_lists_as_many_classes(server: Server) -> None:
    raw = tiny.row(1, ("text",))
    assert len(server.predict(raw, top_k="2").json()["top"]) == 2
    for value in ("0", "4", "-1", "two", "1.5", "²", ""):
        response = server.predict(raw, top_k=value)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
        assert response.json()["part"] == "top_k"


def test_a_text_cut_to_the_models_length_is_said(server: Server) -> None:
    [warning] = server.predict(RawInputs(text=b"a" * 100)).json()["warnings"]
    assert warning == {
        "part": "text",
        "code": "truncated",
        "message": "Only the first 64 of 100 tokens were read.",
    }


@pytest.mark.parametrize(
    ("raw", "status", "code", "part"),
    [
        (RawInputs(), 422, "no_modality", None),
        (RawInputs(image=b"only words"), 415, "unsupported_media_type", "image"),
        (RawInputs(image=b""), 422, "invalid_image", "image"),
        (RawInputs(image=tiny.png((1, 2, 3))[:-30]), 422, "invalid_image", "image"),
        (RawInputs(image=hundred_megapixels()), 413, "image_too_large", "image"),
        (RawInputs(image=b"\xff\xd8\xff" + bytes(2**20)), 413, "part_too_large", "image"),
        (RawInputs(audio=b""), 422, "invalid_audio", "audio"),
        (RawInputs(audio=b"only words"), 415, "unsupported_media_type", "audio"),
        (RawInputs(audio=tiny.wav(np.zeros(88_000))), 413, "audio_too_long", "audio"),
        (RawInputs(audio=tiny.tone(440)[:-9]), 422, "invalid_audio", "audio"),
        (RawInputs(text=b""), 422, "invalid_text", "text"),
        (RawInputs(text=b"\xff\xfe\xfd"), 422, "invalid_text", "text"),
        (RawInputs(text=b"a" * 1001), 413, "text_too_long", "text"),
        (RawInputs(text=b"a" * 5000), 413, "part_too_large", "text"),
    ],
)
def test_bad_input_gets_its_own_refusal_and_the_next_request_its_answer(
    server: Server, raw: RawInputs, status: int, code: str, part: str | None
) -> None:
    response = server.predict(raw, top_k="1") if raw == RawInputs() else server.predict(raw)
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem.get("part") == part
    assert problem["request_id"] == response.headers["x-request-id"]
    assert not re.search(r"0x|Traceback|/|Error", problem["detail"].replace("/docs", ""))
    assert server.predict(tiny.row(1)).status_code == 200


def test_the_other_parts_do_not_hide_a_bad_one(server: Server) -> None:
    """A valid image beside a broken recording is refused, never answered from the image alone."""
    raw = RawInputs(image=tiny.png((1, 2, 3)), text=b"hello", audio=b"RIFF\0\0\0\0WAVE")
    assert server.predict(raw).json()["code"] == "invalid_audio"


def test_a_model_without_audio_refuses_audio(tmp_path: Path) -> None:
    tiny.write(tmp_path, modalities=("image", "text"))
    with serving(tmp_path) as server:
        response = server.predict(tiny.row(1))
        assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
        answer = server.predict(tiny.row(1, ("image",))).json()
        assert answer["modalities"] == {"used": ["image"], "missing": ["text"]}
        assert "audio" not in httpx.get(f"{server.url}/v1/models").json()["models"][0]["limits"]
