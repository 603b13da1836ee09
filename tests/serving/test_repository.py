"""Which bundles go live, and which one a request gets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.runtime.session import Device
from app.serving.errors import ModelAmbiguous, ModelNotFound, NoLiveModel
from app.serving.repository import Repository, open_models
from tests import tiny

CPU = Device("cpu")


def repository(folder: Path, *, default: str | None = None) -> Repository:
    opened = open_models(folder, device=CPU, threads=1)
    return Repository(opened.models, refused=opened.refused, default=default)


def found(models: Repository, *which: object) -> tuple[str, int]:
    manifest = models.find(*which).manifest  # type: ignore[arg-type]
    return manifest.name, manifest.version


def test_the_highest_version_answers_unless_one_is_named(tmp_path: Path) -> None:
    for version in (1, 9, 10):
        tiny.write(tmp_path, version=version)
    models = repository(tmp_path)
    assert found(models) == ("tiny", 10), "by number, not by name"
    assert found(models, "tiny", 9) == ("tiny", 9)
    with pytest.raises(ModelNotFound) as caught:
        models.find("tiny", 2)
    assert caught.value.part == "version"
    with pytest.raises(ModelNotFound):
        models.find("huge")


def test_several_models_need_a_name_or_a_default(tmp_path: Path) -> None:
    tiny.write(tmp_path, name="one")
    tiny.write(tmp_path, name="two")
    with pytest.raises(ModelAmbiguous):
        repository(tmp_path).find()
    assert found(repository(tmp_path, default="two")) == ("two", 1)
    with pytest.raises(NoLiveModel, match="'three' is not live"):
        repository(tmp_path, default="three")


def test_a_bad_bundle_is_refused_and_the_others_serve(tmp_path: Path) -> None:
    good = tiny.write(tmp_path, version=1)
    bad = tmp_path / "tiny" / "2"
    shutil.copytree(good, bad)  # the manifest still says version 1
    (tmp_path / "tiny" / ".3-half-written").mkdir()
    (tmp_path / "notes").mkdir()
    models = repository(tmp_path)
    assert found(models) == ("tiny", 1)
    [refused] = models.refused
    assert (refused.name, refused.version) == ("tiny", 2)
    assert "belongs to tiny/1" in refused.reason


def test_an_empty_folder_serves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoLiveModel):
        open_models(tmp_path, device=CPU, threads=1)


def test_a_live_model_knows_its_costs_before_the_first_request(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    models = repository(tmp_path)
    model = models.find()
    assert model is models.dearest
    assert model.costs.mean_row_s > 0
    assert model.costs.launch_s > 0
