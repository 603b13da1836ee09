"""More than one label for a row, on a real server: conformal sets, and labels that stand on their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from app.bundle.folder import Bundle
from app.bundle.interpret import ClassProbability, Prediction
from app.bundle.manifest import MODALITIES, subsets
from app.bundle.sample import RawInputs
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from tests import tiny
from tests.api.test_batch import json_row
from tests.api.v2.requests import media
from tests.server import Server, serving

SUBSETS = [tuple(name.split("+")) for name in subsets(MODALITIES)]
ROWS = [tiny.row(seed, SUBSETS[seed % 7]) for seed in range(21)]
OUTPUTS = ("probabilities", "logits", "embedding", "modality_probabilities")


def bundles() -> tuple[Bundle, ...]:
    return (
        tiny.make(),
        tiny.with_sets("lac", name="lac"),
        tiny.with_sets("aps", name="aps"),
        tiny.multilabel(),
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Over a bundle of every kind."""
    folder: Path = tmp_path_factory.mktemp("kinds")
    for bundle in bundles():
        tiny.write_files(folder, bundle, bundle.files)
    with serving(folder, default_model="tiny") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as connected:
        yield connected


@pytest.fixture(scope="module")
def predictors() -> dict[str, Predictor]:
    return {
        bundle.manifest.name: Predictor.open(bundle, device=Device("cpu"), threads=1) for bundle in bundles()
    }


def assert_answers(answer: dict[str, Any], expected: Prediction) -> None:
    """What an answer says of labels, and nothing that its model has not."""
    assert answer["label"] == expected.best.label
    assert answer["probability"] == pytest.approx(expected.best.probability, abs=1e-5)
    if expected.prediction_set is None:
        assert "prediction_set" not in answer
    else:
        labels = list(expected.prediction_set.labels)
        assert answer["prediction_set"] == {"level": 0.9, "labels": labels}
        assert labels[0] == answer["label"]
    assert_labels(answer, expected.labels)
    for name, opinion in expected.by_modality.items():
        assert answer["by_modality"][name]["label"] == opinion.label
        assert_labels(answer["by_modality"][name], opinion.labels)


def assert_labels(said: dict[str, Any], expected: tuple[ClassProbability, ...] | None) -> None:
    if expected is None:
        assert "labels" not in said
        return
    assert [one["label"] for one in said["labels"]] == [one.label for one in expected]
    assert [one["probability"] for one in said["labels"]] == pytest.approx(
        [one.probability for one in expected], abs=1e-5
    )


def in_a_batch(server: Server, model: str, rows: list[RawInputs]) -> list[dict[str, Any]]:
    body = {"model": model, "top_k": 1, "rows": [json_row(raw) for raw in rows]}
    answered: list[dict[str, Any]] = httpx.post(f"{server.url}/v1/predict/batch", json=body).json()["rows"]
    return answered


def in_a_stream(server: Server, model: str, rows: list[RawInputs]) -> list[dict[str, Any]]:
    lines = "\n".join(json.dumps(json_row(raw)) for raw in rows)
    response = httpx.post(
        f"{server.url}/v1/predict/stream",
        params={"model": model},
        content=lines,
        headers={"content-type": "application/x-ndjson"},
        timeout=30,
    )
    return sorted(map(json.loads, response.text.splitlines()), key=lambda row: row["index"])


@pytest.mark.parametrize("model", ["tiny", "lac", "aps", "many"])
def test_every_route_answers_alike(server: Server, predictors: dict[str, Predictor], model: str) -> None:
    expected = [predictors[model].predict(raw) for raw in ROWS]
    alone = [server.predict(raw, model=model).json() for raw in ROWS[:7]]
    for answers in (alone, in_a_batch(server, model, ROWS), in_a_stream(server, model, ROWS)):
        for answer, wanted in zip(answers, expected, strict=answers is not alone):
            assert_answers(answer, wanted)
    sizes = {len(one.prediction_set.labels) for one in expected if one.prediction_set}
    assert model not in ("lac", "aps") or len(sizes) > 1, "sets of one size would prove little"
    counts = {len(one.labels) for one in expected if one.labels is not None}
    assert model != "many" or counts >= {0, 1, 2}


def test_labels_that_hold_do_not_depend_on_how_many_are_listed(server: Server) -> None:
    white = RawInputs(image=tiny.png((255, 255, 255)))
    answer = server.predict(white, model="many", top_k="1").json()
    assert len(answer["top"]) == 1
    assert {one["label"] for one in answer["labels"]} == set(tiny.LABELS)


def test_models_say_what_their_answers_hold(server: Server) -> None:
    models = {one["name"]: one for one in httpx.get(f"{server.url}/v1/models").json()["models"]}
    assert {name: model["task"] for name, model in models.items()} == {
        "tiny": "classification", "lac": "classification", "aps": "classification", "many": "multilabel",
    }  # fmt: skip
    assert models["many"]["thresholds"] == [0.5, 0.6, 0.7]
    assert models["lac"]["prediction_set_level"] == 0.9
    assert not {"thresholds", "prediction_set_level"} & models["tiny"].keys()


def test_the_protocol_has_the_sets_as_a_tensor(
    client: triton.InferenceServerClient, predictors: dict[str, Predictor]
) -> None:
    for model in ("lac", "aps"):
        described = client.get_model_metadata(model)["outputs"]
        assert described[-1] == {"name": "prediction_set", "datatype": "BOOL", "shape": [-1, 3]}
        assert client.get_model_config(model)["output"][-1] == {
            "name": "prediction_set", "data_type": "TYPE_BOOL", "dims": [3],
        }  # fmt: skip
        rows = [predictors[model].prepare(raw) for raw in ROWS]
        expected = np.stack([row.prediction_set for row in predictors[model].run(rows)])
        for is_binary in (True, False):
            wanted = [triton.InferRequestedOutput("prediction_set", binary_data=is_binary)]
            said = client.infer(model, media(ROWS), outputs=wanted).as_numpy("prediction_set")
            assert said.dtype == np.bool_
            np.testing.assert_array_equal(said, expected)
        everything = client.infer(model, media(ROWS))
        np.testing.assert_array_equal(everything.as_numpy("prediction_set"), expected)
        assert everything.as_numpy("probabilities").shape == (len(ROWS), 3)


def test_a_model_without_sets_has_no_such_output(client: triton.InferenceServerClient) -> None:
    for model in ("tiny", "many"):
        names = [output["name"] for output in client.get_model_metadata(model)["outputs"]]
        assert names == list(OUTPUTS)
        with pytest.raises(InferenceServerException, match="Outputs are probabilities, logits, embedding"):
            client.infer(model, media(ROWS), outputs=[triton.InferRequestedOutput("prediction_set")])


def test_sets_have_no_classification(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("prediction_set", class_count=2)]
    with pytest.raises(InferenceServerException, match="prediction_set has no classification") as refused:
        client.infer("lac", media(ROWS), outputs=wanted)
    assert refused.value.status() == "400"


def test_classification_names_the_most_probable_of_independent_labels(
    client: triton.InferenceServerClient, predictors: dict[str, Predictor]
) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    named = client.infer("many", media(ROWS), outputs=wanted).as_numpy("probabilities")
    for row, raw in zip(named, ROWS, strict=True):
        top = predictors["many"].predict(raw).top[:2]
        said = [value.decode().split(":") for value in row]
        assert [label for _, _, label in said] == [one.label for one in top]
        assert [float(value) for value, _, _ in said] == pytest.approx(
            [one.probability for one in top], abs=1e-5
        )


def test_kserves_first_protocol_names_them_too(server: Server, predictors: dict[str, Predictor]) -> None:
    texts = ["uno", "due due", "abc", "ciao"]
    body = {"instances": [{"text": text} for text in texts]}
    for model in ("tiny", "lac", "many"):
        predictions = httpx.post(f"{server.url}/v1/models/{model}:predict", json=body).json()["predictions"]
        for said, text in zip(predictions, texts, strict=True):
            expected = predictors[model].predict(RawInputs(text=text.encode()))
            labels = None if expected.labels is None else [one.label for one in expected.labels]
            chosen = expected.prediction_set
            assert said.get("labels") == labels
            assert said.get("prediction_set") == (chosen and {"level": 0.9, "labels": list(chosen.labels)})
            assert ("labels" in said, "prediction_set" in said) == (model == "many", model == "lac")


def test_a_bundle_whose_graph_has_no_sets_is_refused(tmp_path: Path) -> None:
    made, plain = tiny.with_sets(name="lost"), tiny.make(name="sound")
    tiny.write_files(tmp_path, made, made.files | {"fusion.onnx": plain.files["fusion.onnx"]})
    tiny.write_files(tmp_path, plain, plain.files)
    with serving(tmp_path) as other:
        served = httpx.get(f"{other.url}/v1/models").json()
        assert [one["name"] for one in served["models"]] == ["sound"]
        assert served["refused"] == [{"name": "lost", "version": 1}]
        assert any("no output 'prediction_set'" in json.dumps(line) for line in other.log_lines())
