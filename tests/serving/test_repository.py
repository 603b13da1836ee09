"""Which bundles go live, who answers, and what an operator can change while requests flow."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from app.runtime.session import Device
from app.serving.errors import LoadFailed, ModelAmbiguous, ModelNotFound, NoLiveModel
from app.serving.loading import loader
from app.serving.plan import FILE, Plan
from app.serving.repository import Repository, State
from tests import tiny


def repository(folder: Path, *, default: str | None = None, **plan: object) -> Repository:
    load = loader(device=Device("cpu"), threads=1)
    made = Repository(folder, load, plan=Plan.model_validate(plan), default=default)
    made.start()
    return made


def found(models: Repository, *which: object) -> tuple[str, int]:
    manifest = models.find(*which).manifest  # type: ignore[arg-type]
    return manifest.name, manifest.version


def spoil(folder: Path) -> Path:
    (folder / "fusion.onnx").write_bytes(b"changed")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Versions 1, 9 and 10 of tiny."""
    for version in (1, 9, 10):
        tiny.write(tmp_path, version=version)
    return tmp_path


def test_the_highest_version_answers(folder: Path) -> None:
    models = repository(folder)
    assert found(models) == ("tiny", 10), "by number, not by name"
    with pytest.raises(ModelNotFound) as caught:
        models.find("tiny", 9)
    assert caught.value.part == "version"
    with pytest.raises(ModelNotFound):
        models.find("huge")


def test_all_versions_answer_by_number_if_the_plan_says_so(folder: Path) -> None:
    models = repository(folder, versions="all")
    assert [found(models, "tiny", version)[1] for version in (1, 9, 10)] == [1, 9, 10]
    assert found(models) == ("tiny", 10)


def test_a_plan_may_name_versions(folder: Path) -> None:
    models = repository(folder, versions=(1, 9))
    assert sorted(model.manifest.version for model in models) == [1, 9]
    assert found(models) == ("tiny", 9)


def test_several_models_need_a_name_or_a_default(tmp_path: Path) -> None:
    tiny.write(tmp_path, name="one")
    tiny.write(tmp_path, name="two")
    with pytest.raises(ModelAmbiguous):
        repository(tmp_path).find()
    assert found(repository(tmp_path, default="two")) == ("two", 1)
    with pytest.raises(NoLiveModel, match="'three' is not live"):
        repository(tmp_path, default="three")


def test_a_bad_bundle_is_refused_and_the_next_lower_serves(tmp_path: Path) -> None:
    good = tiny.write(tmp_path, version=1)
    shutil.copytree(good, tmp_path / "tiny" / "2")  # the manifest still says version 1
    (tmp_path / "tiny" / ".3-half-written").mkdir()
    (tmp_path / "notes").mkdir()
    models = repository(tmp_path)
    assert found(models) == ("tiny", 1)
    [one, two] = models.index()
    assert (one.state, two.state) == (State.READY, State.UNAVAILABLE)
    assert "belongs to tiny/1" in two.reason


def test_an_empty_folder_serves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoLiveModel):
        repository(tmp_path)


def test_a_new_version_takes_over_and_a_bad_one_does_not(tmp_path: Path) -> None:
    tiny.write(tmp_path, version=1)
    models = repository(tmp_path)
    held = models.find()
    spoil(tiny.write(tmp_path, version=2))
    models.reconcile()
    assert found(models) == ("tiny", 1)
    tiny.write(tmp_path, version=3)
    models.reconcile()
    assert found(models) == ("tiny", 3)
    states = {one.version: one.state for one in models.index()}
    assert states == {1: State.UNLOADING, 2: State.UNAVAILABLE, 3: State.READY}
    assert held.predictor.predict(tiny.row(1)).best.probability > 0, "who holds it is answered"
    del held
    assert {one.version: one.state for one in models.index()}[1] is State.UNAVAILABLE


def test_a_bad_bundle_is_tried_again_only_when_it_changed(tmp_path: Path) -> None:
    tried: list[int] = []
    load = loader(device=Device("cpu"), threads=1)

    def counting(path: Path) -> object:
        tried.append(int(path.name))
        return load(path)

    tiny.write(tmp_path, version=1)
    spoil(tiny.write(tmp_path, version=2))
    models = Repository(tmp_path, counting, plan=Plan())  # type: ignore[arg-type]
    for _ in range(3):
        models.reconcile()
    assert tried == [2, 1]
    shutil.rmtree(tmp_path / "tiny" / "2")
    tiny.write(tmp_path, version=2)
    models.reconcile()
    assert tried == [2, 1, 2]
    assert found(models) == ("tiny", 2)


def test_the_last_version_serves_on_when_its_folder_goes(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path, version=1)
    models = repository(tmp_path)
    (tmp_path / "tiny" / "2").mkdir()
    shutil.rmtree(folder)
    models.reconcile()
    assert found(models) == ("tiny", 1)


def test_promote_and_roll_back(folder: Path) -> None:
    models = repository(folder)
    models.promote("tiny", 9)
    assert found(models) == found(models, "tiny", "stable") == ("tiny", 9)
    models.roll_back("tiny")
    assert found(models) == ("tiny", 10)
    assert found(models, "tiny", 9) == ("tiny", 9), "the version before stays loaded: going back is instant"


def test_without_a_history_rollback_leads_to_the_next_lower_version(folder: Path) -> None:
    models = repository(folder)
    models.roll_back("tiny")
    assert found(models) == ("tiny", 9)


def test_there_is_nothing_below_the_first_version(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    with pytest.raises(LoadFailed, match="no earlier version"):
        repository(tmp_path).roll_back("tiny")


def test_a_canary_gets_its_share(folder: Path) -> None:
    models = repository(folder)
    models.change("tiny", Plan(stable=9, canary=10, canary_share=0.25))
    counts = Counter(found(models)[1] for _ in range(4000))
    assert counts[10] / 4000 == pytest.approx(0.25, abs=0.04)
    assert set(counts) == {9, 10}
    assert found(models, "tiny", "canary") == ("tiny", 10)


def test_a_plan_that_cannot_be_followed_changes_nothing(folder: Path) -> None:
    spoil(folder / "tiny" / "10")
    models = repository(folder)
    assert found(models) == ("tiny", 9)
    with pytest.raises(LoadFailed, match=r"Version 10 cannot be served: fusion\.onnx"):
        models.promote("tiny", 10)
    with pytest.raises(LoadFailed, match="Version 4 cannot be served"):
        models.promote("tiny", 4)
    assert found(models) == ("tiny", 9)
    assert models.plan("tiny").stable is None


def test_unload_and_load(folder: Path) -> None:
    models = repository(folder)
    models.unload("tiny")
    assert list(models) == []
    with pytest.raises(ModelNotFound):
        models.find()
    models.reconcile()
    assert list(models) == [], "it stays unloaded"
    models.load("tiny")
    assert found(models) == ("tiny", 10)
    with pytest.raises(ModelNotFound):
        models.load("huge")


def test_a_plan_outlives_the_process(folder: Path) -> None:
    repository(folder).promote("tiny", 1)
    assert found(repository(folder)) == ("tiny", 1)


@pytest.mark.parametrize("body", ["{", '{"versions": "some"}', '{"canary": 2}', '{"stable": 0}'])
def test_a_plan_that_cannot_be_read_leaves_the_last_one(folder: Path, body: str) -> None:
    models = repository(folder)
    models.promote("tiny", 9)
    (folder / "tiny" / FILE).write_text(body)
    models.reconcile()
    assert found(models) == ("tiny", 9)


def test_a_live_model_knows_its_costs_before_the_first_request(folder: Path) -> None:
    costs = repository(folder).expected_costs()
    assert costs.mean_row_s > 0
    assert costs.launch_s > 0
