"""The client that people use, tritonclient[http], against every route of a running server."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from tests import tiny
from tests.api.v2.requests import media, tensor
from tests.server import Server

ROWS = [
    tiny.row(1),
    tiny.row(2, ("image",)),
    tiny.row(3, ("text",)),
    tiny.row(4, ("image", "audio")),
    tiny.row(5, ("audio",)),
]
OUTPUTS = ("probabilities", "logits", "embedding", "modality_probabilities")

Client = triton.InferenceServerClient


def expected(predictor: Predictor, rows: list[RawInputs], name: str) -> np.ndarray:
    outputs = predictor.run([predictor.prepare(row) for row in rows])
    return np.stack([getattr(output, name) for output in outputs])


def test_health(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("other")


def test_metadata(client: Client) -> None:
    server = client.get_server_metadata()
    assert server["name"] == "trichord"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(server["extensions"])
    model = client.get_model_metadata("tiny")
    assert model == client.get_model_metadata("tiny", "1")
    assert (model["name"], model["versions"], model["platform"]) == ("tiny", ["1"], "onnx_onnxv1")
    assert model["inputs"] == [
        {"name": name, "datatype": "BYTES", "shape": [-1, 1]} for name in ("image", "text", "audio")
    ]
    shapes = {output["name"]: output["shape"] for output in model["outputs"]}
    assert shapes == {
        "probabilities": [-1, 3],
        "logits": [-1, 3],
        "embedding": [-1, 3],
        "modality_probabilities": [-1, 3, 3],
    }


def test_configuration(client: Client) -> None:
    config = client.get_model_config("tiny", "1")
    assert config["max_batch_size"] == 512
    assert config["input"][0] == {"name": "image", "data_type": "TYPE_STRING", "dims": [1], "optional": True}
    assert config["output"][3] == {
        "name": "modality_probabilities",
        "data_type": "TYPE_FP32",
        "dims": [3, 3],
    }
    assert "dynamic_batching" in config
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert config["response_cache"] == {"enable": False}


def test_binary_rows_of_different_modalities_are_answered_as_alone(
    client: Client, predictor: Predictor
) -> None:
    result = client.infer("tiny", media(ROWS), request_id="seven")
    assert result.get_response()["id"] == "seven"
    assert (result.get_response()["model_name"], result.get_response()["model_version"]) == ("tiny", "1")
    for name in OUTPUTS:
        np.testing.assert_allclose(result.as_numpy(name), expected(predictor, ROWS, name), atol=1e-5)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_texts_as_json_and_compressed(
    client: Client, predictor: Predictor, *, binary: bool, compression: str | None
) -> None:
    rows = [tiny.row(seed, ("text",)) for seed in range(40)]
    array = np.array([[row.text.decode()] for row in rows if row.text], object)
    result = client.infer(
        "tiny",
        [tensor("text", array, "BYTES", binary=binary)],
        model_version="1",
        outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS],
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    for name in OUTPUTS:
        np.testing.assert_allclose(result.as_numpy(name), expected(predictor, rows, name), atol=1e-5)
        assert ("parameters" in result.get_output(name)) == binary


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_prepared_tensors_skip_decoding(client: Client, predictor: Predictor, *, binary: bool) -> None:
    rows = [tiny.row(seed) for seed in range(4)]
    samples = [predictor.prepare(row) for row in rows]
    images = np.stack([sample.image for sample in samples])
    tokens = np.zeros((4, 64), np.int32)
    sounds = np.zeros((4, 3000), np.float32)
    for index, sample in enumerate(samples):
        tokens[index, : len(sample.text)] = sample.text
        sounds[index, : len(sample.audio)] = sample.audio
    lengths = np.array([[len(sample.audio)] for sample in samples], np.int32)
    result = client.infer(
        "tiny",
        [
            tensor("image", images, "UINT8", binary=binary),
            tensor("text", tokens, "INT32", binary=binary),
            tensor("audio", sounds, "FP32", binary=binary),
            tensor("audio_length", lengths, "INT32", binary=binary),
        ],
    )
    for name in OUTPUTS:
        np.testing.assert_allclose(result.as_numpy(name), expected(predictor, rows, name), atol=1e-5)


def test_prepared_and_encoded_inputs_mix(client: Client, predictor: Predictor) -> None:
    rows = [tiny.row(seed, ("image", "text")) for seed in range(3)]
    images = np.stack([predictor.prepare(row).image for row in rows])
    inputs = [tensor("image", images, "UINT8"), *media([RawInputs(text=row.text) for row in rows])]
    result = client.infer("tiny", inputs)
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), expected(predictor, rows, "probabilities"), atol=1e-5
    )


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_classification(client: Client, predictor: Predictor, *, binary: bool) -> None:
    wanted = [
        triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2),
        triton.InferRequestedOutput("embedding", binary_data=binary, class_count=99),
    ]
    result = client.infer("tiny", media(ROWS[:2]), outputs=wanted)
    named = result.as_numpy("probabilities")
    named = np.vectorize(lambda value: value.decode() if isinstance(value, bytes) else value)(named)
    for row, raw in zip(named, ROWS[:2], strict=True):
        top = predictor.predict(raw).top[:2]
        assert [value.split(":")[2] for value in row] == [one.label for one in top]
        assert [float(value.split(":")[0]) for value in row] == pytest.approx(
            [one.probability for one in top], abs=1e-5
        )
    embedding = result.get_output("embedding")
    assert embedding["shape"] == [2, 3], "never more classes than there are"
    assert embedding["datatype"] == "BYTES"


def test_the_schedule_policy_reaches_the_engine(client: Client) -> None:
    rows = media([tiny.row(1, ("text",))])
    assert client.infer("tiny", rows, priority=2, timeout=5_000_000).as_numpy("logits").shape == (1, 3)
    with pytest.raises(InferenceServerException, match="no time left") as refused:
        client.infer("tiny", rows, timeout=1)
    assert refused.value.status() == "504"


def test_statistics_count_rows_runs_and_requests(client: Client) -> None:
    before = one_model(client)
    client.infer("tiny", media(ROWS))
    client.infer("tiny", media(ROWS[:1]))
    with pytest.raises(InferenceServerException):
        client.infer("tiny", media([RawInputs(image=b"\xff\xd8\xff broken")]))
    after = one_model(client)

    def grown(*path: str) -> int:
        def at(statistics: dict) -> int:
            for step in path:
                statistics = statistics[step]
            return statistics  # type: ignore[return-value]

        return at(after) - at(before)

    assert grown("inference_count") == 6
    assert grown("execution_count") >= 2
    assert grown("inference_stats", "success", "count") == 2
    assert grown("inference_stats", "fail", "count") == 1
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert grown("inference_stats", stage, "count") == 2
        assert 0 <= grown("inference_stats", stage, "ns") < grown("inference_stats", "success", "ns")
    sizes = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in after["batch_stats"]}
    assert sum(size * count for size, count in sizes.items()) == after["inference_count"]
    assert sum(sizes.values()) == after["execution_count"]
    assert after["last_inference"] >= before["last_inference"] > 1.6e12


def one_model(client: Client) -> dict:
    [statistics] = client.get_inference_statistics("tiny")["model_stats"]
    assert (statistics["name"], statistics["version"]) == ("tiny", "1")
    assert set(statistics) == {
        "name", "version", "last_inference", "inference_count", "execution_count", "inference_stats",
        "response_stats", "batch_stats", "memory_usage",
    }  # fmt: skip
    assert set(statistics["inference_stats"]) == {
        "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
        "cache_miss",
    }  # fmt: skip
    return statistics


def test_statistics_of_all_and_of_one_version(client: Client) -> None:
    everything = client.get_inference_statistics()["model_stats"]
    assert [one["name"] for one in everything] == ["tiny"]
    assert len(client.get_inference_statistics("tiny", "1")["model_stats"]) == 1


def test_one_bad_row_fails_the_request_and_is_named(client: Client, server: Server) -> None:
    rows = [tiny.row(seed, ("image",)) for seed in range(3)]
    with pytest.raises(InferenceServerException, match=r"Row 2: The image cannot be decoded") as refused:
        client.infer("tiny", media([*rows[:2], RawInputs(image=b"\xff\xd8\xff broken"), rows[2]]))
    assert refused.value.status() == "400"
    with pytest.raises(InferenceServerException, match=r"Row 1: it holds nothing"):
        client.infer("tiny", media([rows[0], RawInputs(), rows[1]]))
    assert client.infer("tiny", media(rows)).as_numpy("logits").shape == (3, 3)
    assert server.metrics()["trichord_open_rows"] == 0


@pytest.mark.parametrize("action", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_unknown_models_are_refused_in_words(client: Client, action: str) -> None:
    for arguments in (("other",), ("tiny", "9"), ("tiny", "x"), ("tiny", "9" * 40)):
        with pytest.raises(InferenceServerException, match=r"served|number") as refused:
            getattr(client, action)(*arguments)
        assert refused.value.status() == "404"


def test_request_bodies_made_by_the_client_are_what_we_document(client: Client) -> None:
    body, header_length = client.generate_request_body(media([tiny.row(1, ("text",))]))
    header = json.loads(body[:header_length])
    assert header["parameters"] == {"binary_data_output": True}
    assert header["inputs"][0]["parameters"] == {"binary_data_size": len(body) - header_length}
