"""POST /v1/predict/batch on a real server: one request, many rows, each with its own status."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.bundle.manifest import MODALITIES, subsets
from app.bundle.sample import RawInputs
from tests import tiny
from tests.server import Server, serving

SUBSETS = [tuple(name.split("+")) for name in subsets(MODALITIES)]
ROWS = [tiny.row(seed, SUBSETS[seed % 7]) for seed in range(40)]


def json_row(raw: RawInputs, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict(more)
    for name in ("image", "audio"):
        media = getattr(raw, name)
        if media is not None:
            row[name] = base64.b64encode(media).decode()
    if raw.text is not None:
        row["text"] = raw.text.decode()
    return row


def form_rows(rows: list[RawInputs]) -> list[tuple[str, Any]]:
    return [
        (f"rows[{index}].{name}", ("file", getattr(raw, name)))
        for index, raw in enumerate(rows)
        for name in raw.present
    ]


def post(server: Server, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(
        f"{server.url}/v1/predict/batch",
        content=content,
        headers={"content-type": "application/json", **headers},
        timeout=30,
    )


def assert_same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """But for what measures the run."""
    for name in ("label", "modalities", "warnings"):
        assert answer[name] == expected[name]
    assert probabilities(answer) == pytest.approx(probabilities(expected), abs=1e-6)


def probabilities(answer: dict[str, Any]) -> list[float]:
    classes = [
        answer,
        *answer["top"],
        *(answer["by_modality"][name] for name in sorted(answer["by_modality"])),
    ]
    return [one["probability"] for one in classes]


@pytest.mark.parametrize("priority", ["interactive", "batch"])
def test_every_row_is_answered_as_it_is_alone(server: Server, priority: str) -> None:
    rows = [json_row(raw, id=f"row {n}") for n, raw in enumerate(ROWS)]
    response = post(server, {"rows": rows}, **{"x-request-priority": priority})
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["model"]["name"] == "tiny"
    assert [row["index"] for row in body["rows"]] == list(range(40))
    for number, (row, raw) in enumerate(zip(body["rows"], ROWS, strict=True)):
        assert (row["status"], row["id"]) == (200, f"row {number}")
        assert_same(row, server.predict(raw).json())


def test_a_form_answers_as_json_does(server: Server) -> None:
    parts = [*form_rows(ROWS), ("top_k", (None, "2")), ("rows[3].id", (None, "third"))]
    response = httpx.post(f"{server.url}/v1/predict/batch", files=parts)
    assert response.status_code == 200, response.text
    by_json = post(server, {"rows": [json_row(raw) for raw in ROWS], "top_k": 2}).json()
    for row, other in zip(response.json()["rows"], by_json["rows"], strict=True):
        assert len(row["top"]) == 2
        assert_same(row, other)
    assert [row.get("id") for row in response.json()["rows"][2:5]] == [None, "third", None]


BAD_ROWS: list[tuple[Any, int, str, str | None]] = [
    ({}, 422, "no_modality", None),
    ({"image": "AAAA"}, 415, "unsupported_media_type", "image"),
    ({"image": "A"}, 422, "invalid_image", "image"),
    ({"image": "AAAA AAAA"}, 422, "invalid_image", "image"),
    ({"image": "_-=="}, 422, "invalid_image", "image"),
    ({"image": ""}, 422, "invalid_image", "image"),
    ({"audio": "é"}, 422, "invalid_audio", "audio"),
    ({"text": ""}, 422, "invalid_text", "text"),
    ({"text": "\ud800"}, 422, "invalid_text", "text"),
    ({"text": "a" * 1001}, 413, "text_too_long", "text"),
    ({"image": base64.b64encode(b"\xff\xd8\xff" + bytes(2**20)).decode()}, 413, "part_too_large", "image"),
    ({"text": 5}, 422, "invalid_parameter", "text"),
    ({"image": {"b64": "AAAA"}}, 422, "invalid_parameter", "image"),
    ({"video": "AAAA"}, 422, "invalid_parameter", None),
    ({"id": 7, "text": "a"}, 422, "invalid_parameter", "id"),
    ({"id": "a" * 129, "text": "a"}, 422, "invalid_parameter", "id"),
    ({"id": "\ud800", "text": "a"}, 422, "invalid_parameter", "id"),
    ("text", 422, "invalid_parameter", None),
    (None, 422, "invalid_parameter", None),
    ([[]], 422, "invalid_parameter", None),
]  # fmt: skip


def test_bad_rows_fail_alone(server: Server) -> None:
    """Each bad row stands between two good ones."""
    good = json_row(tiny.row(1), id="good")
    rows = [row for bad, *_ in BAD_ROWS for row in (good, bad)] + [good]
    before = server.metrics()
    response = post(server, {"rows": rows})
    assert response.status_code == 200, response.text
    answered = response.json()["rows"]
    assert [row["status"] for row in answered[0::2]] == [200] * (len(BAD_ROWS) + 1)
    for row, (bad, status, code, part) in zip(answered[1::2], BAD_ROWS, strict=True):
        problem = row["error"]
        assert (row["status"], problem["status"], problem["code"]) == (status, status, code), bad
        assert problem.get("part") == part, bad
        assert problem["detail"]
        assert "label" not in row
    name = 'trichord_row_failures_total{code="invalid_image"}'
    assert server.metrics()[name] - before.get(name, 0) == 4


def test_a_bad_row_of_a_form_fails_alone(server: Server) -> None:
    parts = form_rows(
        [ROWS[0], RawInputs(image=b"\xff\xd8\xff broken"), RawInputs(text=bytes(5000)), ROWS[6]]
    )
    rows = httpx.post(f"{server.url}/v1/predict/batch", files=parts).json()["rows"]
    assert [row["status"] for row in rows] == [200, 422, 413, 200]


def test_a_bad_row_keeps_its_id(server: Server) -> None:
    [row] = post(server, {"rows": [{"id": "mine", "image": "!"}]}).json()["rows"]
    assert (row["id"], row["error"]["code"]) == ("mine", "invalid_image")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_request"),
        (b"{", 400, "bad_request"),
        (b"\xff\xfe", 400, "bad_request"),
        (b'{"rows":[{"text":"a"}],"rows":[]}', 400, "bad_request"),
        (b'{"rows":[NaN]}', 400, "bad_request"),
        (b'{"rows":[' + b"1" * 5000 + b"]}", 400, "bad_request"),
        (b"[" * 100_000, 400, "bad_request"),
        (b'{"rows":[' + b"[]," * 2**17 + b"[]]}", 413, "body_too_large"),
        (b'{"rows":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "bad_request"),
        ([], 422, "invalid_parameter"),
        ({}, 422, "invalid_parameter"),
        ({"rows": []}, 422, "invalid_parameter"),
        ({"rows": {"text": "a"}}, 422, "invalid_parameter"),
        ({"rows": [{"text": "a"}] * 1025}, 422, "invalid_parameter"),
        ({"rows": [{"text": "a"}], "more": 1}, 422, "invalid_parameter"),
        ({"rows": [{"text": "a"}], "top_k": 4}, 422, "invalid_parameter"),
        ({"rows": [{"text": "a"}], "top_k": True}, 422, "invalid_parameter"),
        ({"rows": [{"text": "a"}], "top_k": "1"}, 422, "invalid_parameter"),
        ({"rows": [{"text": "a"}], "version": 2.0}, 422, "invalid_parameter"),
        ({"rows": [{"text": "a"}], "model": "none"}, 404, "model_not_found"),
    ],
)
def test_a_request_that_is_wrong_as_a_whole_is_refused(
    server: Server, body: object, status: int, code: str
) -> None:
    response = post(server, body)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert server.predict(tiny.row(1)).status_code == 200


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"rows[1].text": "a"}, "invalid_parameter"),
        ({"rows[0].text": "a", "rows[2].text": "a"}, "invalid_parameter"),
        ({"rows[00].text": "a"}, "invalid_parameter"),
        ({"rows[-1].text": "a"}, "invalid_parameter"),
        ({"rows[²].text": "a"}, "invalid_parameter"),
        ({"rows[0].video": "a"}, "invalid_parameter"),
        ({"rows[1024].text": "a"}, "invalid_parameter"),
        ({"text": "a"}, "invalid_parameter"),
        ({"top_k": "1"}, "invalid_parameter"),
    ],
)
def test_rows_of_a_form_are_counted_from_zero(server: Server, parts: dict[str, str], code: str) -> None:
    files = {name: (None, value) for name, value in parts.items()}
    response = httpx.post(f"{server.url}/v1/predict/batch", files=files)
    assert (response.status_code, response.json()["code"]) == (422, code)


def test_other_bodies_are_refused(server: Server) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-encoding": "gzip"}):
        response = post(server, {"rows": [{"text": "a"}]}, **headers)
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    response = post(server, b" " * (32 * 2**20 + 1))
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_version_is_a_number_or_a_label(server: Server) -> None:
    for version in (1, "stable"):
        answer = post(server, {"rows": [{"text": "a"}], "version": version}).json()
        assert answer["model"]["version"] == 1
    for version, code in ((9, "model_not_found"), ("canary", "model_not_found"), ("1", "invalid_parameter")):
        assert post(server, {"rows": [{"text": "a"}], "version": version}).json()["code"] == code


def test_a_priority_is_one_of_two(server: Server) -> None:
    body = {"rows": [{"text": "a"}]}
    for priority in ("interactive", "batch"):
        assert post(server, body, **{"x-request-priority": priority}).status_code == 200
    response = post(server, body, **{"x-request-priority": "urgent"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")


def test_more_rows_than_the_engine_takes_are_refused_for_good(tmp_path: Path) -> None:
    """Not as overloaded: trying again could never help."""
    tiny.write(tmp_path)
    with serving(tmp_path, max_rows=4) as server:
        rows = [json_row(raw) for raw in ROWS[:5]]
        assert post(server, {"rows": rows}).json()["code"] == "invalid_parameter"
        assert post(server, {"rows": rows[:4]}).status_code == 200
        assert server.metrics()["trichord_open_rows"] == 0
