"""What the client returns is what the server says, for one row, many rows, vectors, models and probes."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import client as api
from app.bundle.folder import Bundle
from app.client import AsyncClient, Client, Row
from app.runtime.predictor import Predictor
from tests import tiny
from tests.api.test_batch import ROWS
from tests.client.scripted import PREDICTED, Say, scripted
from tests.server import Server, serving


def asked(raw: Any) -> dict[str, Any]:
    """A row of the tests as the client takes it."""
    return {
        name: getattr(raw, name).decode() if name == "text" else getattr(raw, name) for name in raw.present
    }


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a model with sets and one with any number of labels."""
    folder = tmp_path_factory.mktemp("varied")
    for bundle in (tiny.with_sets(), tiny.multilabel()):
        tiny.write_files(folder, bundle, bundle.files)
    with serving(folder) as running:
        yield running


def test_a_prediction_is_all_that_the_server_says(server: Server) -> None:
    raw = tiny.row(3)
    said = server.predict(raw, top_k="2").json()
    with Client(server.url) as client:
        found = client.predict(**asked(raw), top_k=2, priority="batch", deadline_s=20, cache=True)
    assert (found.label, found.probability) == (said["label"], pytest.approx(said["probability"]))
    assert [one.label for one in found.top] == [one["label"] for one in said["top"]]
    assert (found.model, found.version, found.digest) == tuple(said["model"].values())
    assert found.by_modality.keys() == said["by_modality"].keys()
    assert (found.used, found.missing) == (("image", "text", "audio"), ())
    assert (found.labels, found.prediction_set, found.warnings, found.retries) == (None, None, (), 0)
    assert found.batch_size == 1
    assert 0 < found.timings.run_ms <= found.timings.total_ms
    assert len(found.request_id) == 32
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.label = "blue"  # type: ignore[misc]


def test_timings_are_those_of_the_header(server: Server) -> None:
    said = server.predict(tiny.row(3))
    with scripted(Say(200, said.content)) as same, Client(same.url) as client:
        timings = client.predict(text="a").timings
    header = dict(one.split(";dur=") for one in said.headers["server-timing"].split(", "))
    assert dataclasses.astuple(timings) == tuple(
        float(header[name]) for name in ("decode", "queue", "run", "total")
    )


def test_options_go_out_as_the_page_says() -> None:
    with scripted(PREDICTED) as server, Client(f"{server.url}/under/", api_key="k1") as client:
        client.predict(text="a", model="m", version="canary", top_k=3, priority="batch", cache=True)
        [one] = server.asked
    assert one.path == "/under/v1/predict"
    assert one.headers["authorization"] == "Bearer k1"
    assert one.headers["x-request-priority"] == "batch"
    for name, value in {
        "model": "m",
        "version": "canary",
        "top_k": "3",
        "cache": "true",
        "text": "a",
    }.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in one.body


def test_sets_and_labels(varied: Server) -> None:
    with Client(varied.url) as client:
        of_sets = client.predict(text="a", model="sets")
        assert of_sets.prediction_set is not None
        assert of_sets.prediction_set.level == 0.9
        assert of_sets.label in of_sets.prediction_set.labels
        many = client.predict(image=tiny.png((250, 250, 10)), model="many")
        assert many.labels is not None
        assert {one.label for one in many.labels} >= {"red", "green"}
        assert many.by_modality["image"].labels == many.labels
        by_name = {model.name: model for model in client.models()}
        assert by_name["many"].thresholds == (0.5, 0.6, 0.7)
        assert by_name["sets"].prediction_set_level == 0.9


def test_an_explanation_is_all_that_the_server_says(server: Server) -> None:
    raw = tiny.row(4)
    said = server.predict(raw, explain="true").json()["explanation"]
    rows = [Row(**asked(raw)), Row(text="a")]

    async def ask() -> list[api.Prediction]:
        async with AsyncClient(server.url) as client:
            batch = await client.predict_batch(rows, explain=True)
            return [await client.explain(**asked(raw)), batch[0].result()]

    with Client(server.url) as client:
        found = [client.explain(**asked(raw)), client.predict_batch(rows, explain=True)[0].result()]
        found += [one.result() for one in client.stream(rows[:1], explain=True)]
        assert client.predict(**asked(raw)).explanation is None
    for one in [*found, *asyncio.run(ask())]:
        assert one.explanation is not None
        assert (one.explanation.label, one.explanation.prior) == (said["label"], "even")
        assert one.explanation.base == said["base"]
        assert one.explanation.contributions == pytest.approx(said["contributions"], abs=1e-5)
        assert list(one.explanation.subsets) == list(said["subsets"])
        assert one.explanation.subsets["image"].label == said["subsets"]["image"]["label"]


def test_a_warning_is_passed_on(server: Server) -> None:
    with Client(server.url) as client:
        [warning] = client.predict(text="a " * 200).warnings
    assert warning.part == "text"
    assert warning.message


def test_an_embedding_is_the_models_own(server: Server, predictor: Predictor) -> None:
    raw = tiny.row(5)
    [outputs] = predictor.run([predictor.prepare(raw)])
    with Client(server.url) as client:
        found = client.embed(**asked(raw), model="tiny", version=1)
    assert isinstance(found.vector, array)
    np.testing.assert_allclose(np.asarray(found.vector), outputs.embedding, atol=1e-6)
    assert np.asarray(found.vector).dtype == np.float32
    assert set(found.by_modality) == {"image", "text", "audio"}
    assert (found.model, found.used) == ("tiny", ("image", "text", "audio"))


def test_models_and_health(server: Server, bundle: Bundle) -> None:
    with Client(server.url) as client:
        [model] = client.models()
        assert client.health() == api.Health("ok")
        assert client.ready()
        client.wait_ready(5)
    assert (model.name, model.version, model.labels) == ("tiny", 1, tiny.LABELS)
    assert model.digest == bundle.manifest.digest
    assert model.limits["audio"]["max_seconds"] == 10
    assert (model.task, model.thresholds, model.prediction_set_level) == ("classification", None, None)


def test_a_batch_has_an_answer_for_each_row(server: Server) -> None:
    rows = [Row(**asked(raw), id=f"row {place}") for place, raw in enumerate(ROWS)]
    rows += [Row(), Row(image=b"GIF89a", id="bad"), Row(text="a")]
    with Client(server.url) as client:
        answers = client.predict_batch(rows, top_k=1)
        alone = [client.predict(**asked(raw)) for raw in ROWS[:7]]
        assert client.predict_batch(iter(rows[:2]))[1].id == "row 1"
    assert [one.index for one in answers] == list(range(len(rows)))
    assert [one.id for one in answers] == [row.id for row in rows]
    for one, expected in zip(answers, alone, strict=False):
        found = one.result()
        assert (found.label, len(found.top), found.digest) == (expected.label, 1, expected.digest)
        assert found.probability == pytest.approx(expected.probability, abs=1e-5)
    assert [type(one.error) for one in answers[-3:]] == [api.NoModality, api.UnsupportedMediaType, type(None)]
    with pytest.raises(api.UnsupportedMediaType) as raised:
        answers[-2].result()
    assert (raised.value.part, raised.value.status) == ("image", 415)
    assert raised.value.request_id == answers[0].result().request_id


def test_the_asynchronous_client_answers_the_same(server: Server) -> None:
    raw = tiny.row(8)

    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(server.url) as client:
            await client.wait_ready(5)
            await asyncio.gather(*(client.predict(text=str(seed)) for seed in range(20)))
            return (
                await client.predict(**asked(raw)),
                await client.embed(**asked(raw)),
                await client.predict_batch([Row(**asked(raw)), Row()]),
                await client.models(),
                await client.health(),
                await client.ready(),
                client.statistics,
            )

    predicted, embedded, batch, models, health, is_ready, statistics = asyncio.run(ask())
    with Client(server.url) as client:
        assert predicted.probability == pytest.approx(client.predict(**asked(raw)).probability)
        assert embedded.vector == client.embed(**asked(raw)).vector
        assert (models, health, is_ready) == (client.models(), client.health(), True)
    assert [type(one.error) for one in batch] == [type(None), api.NoModality]
    assert statistics == api.Statistics(calls=24)


def test_a_server_that_stops_is_unready_and_alive(models_dir: Path) -> None:
    with serving(models_dir, drain_seconds=2) as server, Client(server.url) as client:
        assert client.ready()
        server.process.send_signal(signal.SIGTERM)
        while client.ready():
            pass
        assert client.health().status == "ok"
        with pytest.raises(api.DeadlinePassed, match="draining"):
            client.wait_ready(0.1)
        assert server.process.wait(20) == 0


def test_a_certificate_is_asked_for(server: Server) -> None:
    """Over TLS to a server that speaks none: the connection fails as any other does."""
    url, once = server.url.replace("http", "https"), api.Retries(most=0)
    with Client(url, retries=once) as client, pytest.raises(api.ConnectionFailed):
        client.models()
