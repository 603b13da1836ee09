"""What the client would not send: malformed requests get 400 and a sentence, and harm nobody."""

from __future__ import annotations

import base64
import gzip
import re
import struct
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from tests import tiny
from tests.api.v2.requests import HEADER, INFER, binary, error, post, texts
from tests.server import Server

GOOD = texts("sept", "huit")
ELEMENT = struct.pack("<I", 4) + b"sept"


def spec(**changes: Any) -> dict[str, Any]:
    """A request of one text whose input differs from a good one; None takes a member away."""
    [good] = texts("sept")["inputs"]
    return {"inputs": [{name: value for name, value in (good | changes).items() if value is not None}]}


def described(size: object, **changes: Any) -> dict[str, Any]:
    return spec(data=None, parameters={"binary_data_size": size}, **changes)


def audio_of(samples: int, *, length: int) -> dict[str, Any]:
    [sound] = spec(name="audio", datatype="FP32", shape=[1, samples], data=[0.1] * samples)["inputs"]
    [said] = spec(name="audio_length", datatype="INT32", data=[length])["inputs"]
    return {"inputs": [sound, said]}


def test_json_in_and_out_by_default(server: Server, predictor: Predictor) -> None:
    response = post(server, GOOD | {"id": "a"})
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", "1", "a")
    [probabilities] = [out for out in answer["outputs"] if out["name"] == "probabilities"]
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [2, 3])
    raw = RawInputs(text=b"huit")
    best = predictor.predict(raw).best.probability
    assert max(probabilities["data"][3:]) == pytest.approx(best, abs=1e-5)


def test_media_in_json_are_base64(server: Server, predictor: Predictor) -> None:
    row = tiny.row(3, ("image", "audio"))
    inputs = [
        {
            "name": name,
            "shape": [1, 1],
            "datatype": "BYTES",
            "data": [[base64.b64encode(getattr(row, name)).decode()]],
        }
        for name in ("image", "audio")
    ]
    answer = post(server, {"inputs": inputs, "outputs": [{"name": "probabilities"}]}).json()
    [probabilities] = answer["outputs"]
    assert max(probabilities["data"]) == pytest.approx(predictor.predict(row).best.probability, abs=1e-5)


def test_a_shape_of_rows_alone_is_read(server: Server) -> None:
    assert post(server, spec(shape=[1])).status_code == 200
    sound = {"name": "audio", "shape": [1, 20], "datatype": "FP32", "data": [0.5] * 20}
    length = {"name": "audio_length", "shape": [1], "datatype": "INT32", "data": [7]}
    assert post(server, {"inputs": [sound, length]}).status_code == 200


def test_one_output_may_be_binary_and_another_not(server: Server) -> None:
    wanted = [
        {"name": "logits", "parameters": {"binary_data": False}},
        {"name": "embedding"},
        {"name": "probabilities"},
    ]
    response = post(server, GOOD | {"outputs": wanted, "parameters": {"binary_data_output": True}})
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[HEADER])
    logits, embedding, probabilities = httpx.Response(200, content=response.content[:length]).json()[
        "outputs"
    ]
    assert len(logits["data"]) == 6
    sizes = [output["parameters"]["binary_data_size"] for output in (embedding, probabilities)]
    assert sizes == [24, 24]
    assert len(response.content) == length + 48
    values = np.frombuffer(response.content[-24:], "<f4").reshape(2, 3)
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)


def test_answers_are_compressed_for_those_who_ask(server: Server) -> None:
    body = texts(*["sept"] * 50)
    for encoding, headers in (
        ("gzip", {"accept-encoding": "gzip"}),
        ("deflate", {"accept-encoding": "br, gzip;q=0, deflate;q=0.5"}),
        (None, {"accept-encoding": "identity"}),
        (None, {"accept-encoding": "gzip;q=0.0, br"}),
    ):
        response = post(server, body, **headers)
        assert response.headers.get("content-encoding") == encoding
        assert len(response.json()["outputs"]) == 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be parsed"),
        (b"\xff", "cannot be parsed"),
        (b"\xef\xbb\xbf{}", "cannot be parsed"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": ' * 50_000, "nested too deeply"),
        (b'{"inputs": NaN}', "cannot be parsed"),
        (b'{"inputs": [], "id": -Infinity}', "cannot be parsed"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "cannot be parsed"),
        (b"[]", "the request"),
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [1]}, "inputs.0"),
        (GOOD | {"id": 7}, "id"),
        (GOOD | {"parameters": {"timeout": -1}}, "timeout"),
        (GOOD | {"parameters": {"priority": "high"}}, "priority"),
        (GOOD | {"outputs": [{"name": "answer"}]}, "Outputs are"),
        (GOOD | {"outputs": [{"name": "logits"}] * 2}, "at most once"),
        (GOOD | {"outputs": [{"name": "logits", "parameters": {"classification": -1}}]}, "classification"),
        (
            GOOD | {"outputs": [{"name": "modality_probabilities", "parameters": {"classification": 1}}]},
            "no classification",
        ),
        (spec(name="video"), "another name"),
        (spec(datatype="FP64"), "datatype"),
        (spec(datatype="FP32", data=[1.0]), "'text' is BYTES or INT32"),
        (spec(shape=[]), "shape"),
        (spec(shape=[0, 1]), "shape"),
        (spec(shape=[-1, 1]), "shape"),
        (spec(shape=[True, 1]), "shape"),
        (spec(shape=[1.0, 1]), "shape"),
        (spec(shape=[2, 1]), "do not fill"),
        (spec(shape=[1, 2], data=["a", "b"]), "another shape"),
        (spec(shape=[2**31 - 1, 1]), "do not fill"),
        (spec(shape=[10**30, 1]), "shape"),
        (spec(data=[1]), "strings"),
        (spec(data=[{}]), "strings"),
        (spec(data=["\ud800"]), "Unicode"),
        (spec(data=None), "neither"),
        (spec(name="image", data=["not base64!"]), "base64"),
        (spec(data=[""]), "Row 0: it holds nothing"),
        (spec(data=["  "]), "Row 0: The text is blank"),
        ({"inputs": GOOD["inputs"] * 2}, "twice"),
        ({"inputs": [*GOOD["inputs"], *spec(name="image", data=[""])["inputs"]]}, "differ"),
        (texts(*["a"] * 513), "at most 512 rows"),
        (spec(parameters={"shared_memory_region": "r"}, data=None), "Shared memory"),
        (spec(parameters={"binary_data_size": 3}), "run past the end"),
        (spec(parameters={"binary_data_size": 0}), "both data"),
        (spec(parameters={"binary_data_size": -1}), "binary_data_size"),
        (spec(parameters={"binary_data_size": "3"}), "binary_data_size"),
        (spec(datatype="INT32", shape=[1, 2], data=[1, -1]), "Row 0: Token ids"),
        (spec(datatype="INT32", shape=[1, 2], data=[1, 257]), "Row 0: Token ids"),
        (spec(datatype="INT32", shape=[1, 65], data=[1] * 65), "at most 64 tokens"),
        (spec(datatype="INT32", shape=[1, 2], data=[0, 0]), "holds nothing"),
        (spec(name="image", datatype="UINT8", shape=[1, 2, 2, 3], data=[0] * 12), r"Row 0: .*\[8, 8, 3\]"),
        (spec(name="audio", datatype="FP32", shape=[1, 2], data=[0.1, 1e38]), "Row 0: Samples"),
        (spec(name="audio", datatype="FP32", shape=[2], data=[0.1, 0.1]), "another shape"),
        (spec(name="audio_length", datatype="INT32", shape=[1, 1], data=[3]), "holds nothing"),
        (spec(name="audio_length", datatype="INT32", shape=[1, 2], data=[3, 3]), "another shape"),
        (audio_of(4, length=5), "Row 0: A prepared recording"),
        (audio_of(4, length=-1), "Row 0: A prepared recording"),
        (audio_of(4, length=0), "Row 0: it holds nothing"),
    ],
)  # fmt: skip
def test_malformed_requests_are_told_why(server: Server, content: Any, says: str) -> None:
    response = post(server, content)
    assert response.status_code == 400, response.text
    assert re.search(says, error(response)), error(response)


@pytest.mark.parametrize(
    ("header", "tensors", "says"),
    [
        (described(9), [ELEMENT], "run past the end"),
        (described(8), [ELEMENT, b"x"], "more bytes than its inputs"),
        (described(7), [ELEMENT], "runs past the end"),
        (described(8, shape=[2, 1]), [ELEMENT], "fewer elements"),
        (described(8), [struct.pack("<I", 5) + b"sept"], "past the end"),
        (described(8), [struct.pack("<I", 2**32 - 1) + b"sept"], "past the end"),
        (described(16), [ELEMENT * 2], "more bytes than the shape"),
        (described(3), [b"abc"], "fewer elements"),
        (described(7, datatype="INT32", shape=[1, 2]), [bytes(7)], "number of bytes"),
        (
            described(8, name="audio", datatype="FP32", shape=[1, 2]),
            [struct.pack("<2f", 0, float("nan"))],
            "Samples",
        ),
        (spec(), [b"left over"], "more bytes than its inputs"),
    ],
)
def test_binary_tensors_that_do_not_fit_are_told_why(
    server: Server, header: Any, tensors: list[bytes], says: str
) -> None:
    body, headers = binary(header, *tensors)
    response = post(server, body, **headers)
    assert response.status_code == 400, response.text
    assert says in error(response)


@pytest.mark.parametrize("length", ["0", "-1", "1e3", "0x10", "", "999999", "9" * 30, "١", "12.5", "4 4"])
def test_header_lengths_that_are_none_are_refused(server: Server, length: str) -> None:
    body, _ = binary(described(8), ELEMENT)
    response = post(server, body, **{HEADER: length.encode()})  # type: ignore[arg-type]
    assert response.status_code == 400
    assert error(response)


def test_a_header_that_points_into_the_json_is_refused(server: Server) -> None:
    body, headers = binary(described(8), ELEMENT)
    for off in (-9, -1, 1, 7):
        response = post(server, body, **{HEADER: str(int(headers[HEADER]) + off)})
        assert response.status_code == 400
        assert error(response)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"plain", "gzip"),
        (b"plain", "deflate"),
        (gzip.compress(b"{}", mtime=0)[:-1], "gzip"),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip"),
        (zlib.compress(b"{}"), "gzip"),
        (b"", "gzip"),
        (b"{}", "br"),
        (b"{}", "gzip, gzip"),
    ],
)
def test_broken_compression_is_refused(server: Server, body: bytes, encoding: str) -> None:
    response = post(server, body, **{"content-encoding": encoding})
    assert response.status_code == 400
    assert error(response)


def test_what_is_too_large_is_refused(server: Server) -> None:
    bomb = gzip.compress(bytes(70 * 2**20))
    assert len(bomb) < 2**17
    for body, headers in (
        (bomb, {"content-encoding": "gzip"}),
        (b" " * (17 * 2**20), {}),  # as JSON; binary may be larger
        (b'{"inputs": [' + b"[]," * 2**18 + b"[]]}", {}),
    ):
        response = post(server, body, **headers)
        assert response.status_code == 413
        assert "more than" in error(response)
    assert server.metrics()["trichord_open_bytes"] == 0


def test_inputs_too_large_for_the_model_are_413(server: Server) -> None:
    response = post(server, spec(data=["x" * 1001]))
    assert (response.status_code, error(response)[:6]) == (413, "Row 0:")


def test_wrong_paths_and_methods_are_told_in_the_protocols_form(server: Server) -> None:
    for method, path, status in (
        ("GET", INFER, 405),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/tiny/versions/7/infer", 404),
        ("DELETE", "/v2", 405),
    ):
        response = httpx.request(method, server.url + path)
        assert response.status_code == status
        assert error(response)


def test_a_deadline_in_the_header_that_is_none_is_refused(server: Server) -> None:
    response = post(server, GOOD, **{"x-request-deadline-ms": "soon"})
    assert response.status_code == 400
    assert "milliseconds" in error(response)
