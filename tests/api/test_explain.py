"""explain=true on a real server: what it says adds up, and is what asking for each subset would say."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.bundle.manifest import MODALITIES, Modality, subsets
from app.bundle.sample import RawInputs
from tests import tiny
from tests.server import Server, form, serving

SUBSETS = [tuple(name.split("+")) for name in subsets(MODALITIES)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a model with any number of labels a row, which remembers inputs."""
    folder = tmp_path_factory.mktemp("many")
    bundle = tiny.multilabel()
    tiny.write_files(folder, bundle, bundle.files)
    with serving(folder, cache_megabytes=1) as running:
        yield running


def only(raw: RawInputs, subset: str) -> RawInputs:
    return RawInputs(**{name: getattr(raw, name) for name in subset.split("+")})


def assert_explained(server: Server, raw: RawInputs, said: dict[str, Any], *, even: float) -> None:
    explanation = said["explanation"]
    label, base, contributions = (explanation[name] for name in ("label", "base", "contributions"))
    assert (label, explanation["prior"]) == (said["label"], "even")
    assert base == pytest.approx(math.log(even))
    assert list(contributions) == said["modalities"]["used"]
    assert base + sum(contributions.values()) == pytest.approx(math.log(said["probability"]), abs=1e-6)
    assert list(explanation["subsets"]) == list(subsets(raw.present))
    for name, told in explanation["subsets"].items():
        alone = server.predict(only(raw, name), top_k="3").json()
        assert told["label"] == alone["label"]
        assert told["probability"] == pytest.approx(alone["probability"], abs=1e-5)
        of_label = {one["label"]: one["probability"] for one in alone["top"]}[label]
        assert told["log_probability"] == pytest.approx(math.log(of_label), abs=1e-5)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_an_explanation_adds_up_and_is_what_each_subset_says(
    server: Server, subset: tuple[Modality, ...]
) -> None:
    raw = tiny.row(21, subset)
    said = server.predict(raw, explain="true").json()
    assert said["batch_size"] == 1
    assert_explained(server, raw, said, even=1 / 3)


def test_of_many_labels_the_answers_own_is_explained_also_from_the_cache(many: Server) -> None:
    raw = tiny.row(22)
    for _ in range(2):
        assert_explained(many, raw, many.predict(raw, explain="true", cache="true").json(), even=0.5)


def test_it_is_said_only_when_asked(server: Server) -> None:
    raw = tiny.row(1, ("text",))
    assert "explanation" not in server.predict(raw).json()
    assert "explanation" not in server.predict(raw, explain="false").json()
    refused = server.predict(raw, explain="yes")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    of_vectors = httpx.post(f"{server.url}/v1/embed", files=form(raw, explain="true"))
    assert (of_vectors.status_code, of_vectors.json()["code"]) == (422, "invalid_parameter")


def test_many_rows_are_explained_each_for_itself(server: Server) -> None:
    """As a batch in JSON, as a form, and as a stream; a row that is wrong harms none."""
    raws = [tiny.row(30 + place, subset) for place, subset in enumerate(SUBSETS)]
    alone = [server.predict(raw, explain="true").json()["explanation"] for raw in raws]
    rows: list[dict[str, str]] = [_json(raw) for raw in raws] + [{"image": "R0lGODlh"}]
    batch = httpx.post(f"{server.url}/v1/predict/batch", json={"explain": True, "rows": rows}).json()["rows"]
    parts = [
        (f"rows[{place}].{name}", (None, getattr(raw, name)))
        for place, raw in enumerate(raws)
        for name in raw.present
    ]
    filed = httpx.post(f"{server.url}/v1/predict/batch", files=[("explain", (None, "true")), *parts]).json()
    lines = httpx.post(
        f"{server.url}/v1/predict/stream?explain=true",
        content="".join(json.dumps(row) + "\n" for row in rows),
        headers={"Content-Type": "application/x-ndjson"},
    ).text.splitlines()
    stream = sorted(map(json.loads, lines), key=lambda row: int(row["index"]))
    assert batch[-1]["status"] == stream[-1]["status"] == 415
    for said in (batch, filed["rows"], stream):
        for row, expected in zip(said, alone, strict=False):
            explanation = row["explanation"]
            assert explanation["label"] == expected["label"]
            assert explanation["contributions"] == pytest.approx(expected["contributions"], abs=1e-5)


def _json(raw: RawInputs) -> dict[str, str]:
    return {
        name: raw.text.decode()
        if name == "text" and raw.text
        else base64.b64encode(getattr(raw, name)).decode()
        for name in raw.present
    }
