"""KServe's first protocol, on the same engine."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from tests import tiny
from tests.api.v2.requests import error, post
from tests.server import Server

PATH = "/v1/models/tiny:predict"


def instance(row: RawInputs) -> dict[str, Any]:
    made: dict[str, Any] = {} if row.text is None else {"text": row.text.decode()}
    for name in ("image", "audio"):
        body = getattr(row, name)
        if body is not None:
            made[name] = {"b64": base64.b64encode(body).decode()}
    return made


def test_instances_are_predicted(server: Server, predictor: Predictor) -> None:
    rows = [tiny.row(1), tiny.row(2, ("text",)), tiny.row(3, ("audio", "image"))]
    response = post(server, {"instances": [instance(row) for row in rows]}, PATH)
    predictions = response.json()["predictions"]
    for prediction, row in zip(predictions, rows, strict=True):
        expected = predictor.predict(row)
        assert prediction["label"] == expected.best.label
        assert prediction["probability"] == pytest.approx(expected.best.probability, abs=1e-5)
        assert prediction["probabilities"] == pytest.approx(
            {one.label: one.probability for one in expected.top}, abs=1e-5
        )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "cannot be parsed"),
        ({}, "cannot be read"),
        ({"instances": []}, "cannot be read"),
        ({"instances": [{}]}, "Row 0: it holds nothing"),
        ({"instances": [{"text": "a"}, {"video": 1}]}, "unknown member"),
        ({"instances": [{"text": "a"}, {"text": " "}]}, "Row 1: The text is blank"),
        ({"instances": [{"image": "raw"}]}, "cannot be read"),
        ({"instances": [{"image": {"b64": "!"}}]}, "Row 0: media are base64"),
        ({"instances": [{"image": {"b64": "AAAA"}}]}, "Row 0: The image is not"),
        ({"instances": [{"text": "a"}] * 513}, "at most 512"),
    ],
)
def test_what_is_wrong_is_told_as_kserve_tells_it(server: Server, content: Any, says: str) -> None:
    response = post(server, content, PATH)
    assert response.status_code == 400
    assert says in error(response)


def test_an_unknown_model_is_not_found(server: Server) -> None:
    response = post(server, {"instances": [{"text": "a"}]}, "/v1/models/other:predict")
    assert response.status_code == 404
    assert error(response)
