"""Which bundles go live, who answers, and what an operator can change while requests flow."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from app.bundle.folder import Bundle
from app.runtime.errors import DeviceUnavailable
from app.runtime.session import Device
from app.serving.errors import FolderUnreadable, LoadFailed, ModelAmbiguous, ModelNotFound, NoLiveModel
from app.serving.loading import loader
from app.serving.model import LiveModel
from app.serving.plan import FILE, Plan, read_plan
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


def of_another_library(bundle: Bundle) -> dict[str, bytes]:
    tokenizer = json.loads(bundle.files["tokenizer.json"])
    tokenizer["model"]["type"] = "Unheard"
    return bundle.files | {"tokenizer.json": json.dumps(tokenizer).encode()}


def graph_of_other_pictures(bundle: Bundle) -> dict[str, bytes]:
    graph = tiny.graph(tiny.IMAGE_GRAPH.replace("[rows,8,8,3]", "[rows,9,9,3]"))
    return bundle.files | {"encoders/image.onnx": graph}


def graph_of_wider_features(bundle: Bundle) -> dict[str, bytes]:
    graph = tiny.IMAGE_GRAPH.replace(
        "features = Div (mean, scale)",
        "narrow = Div (mean, scale)\n    features = Concat <axis = 1> (narrow, narrow)",
    ).replace("float[rows,3] features", "float[rows,6] features")
    return bundle.files | {"encoders/image.onnx": tiny.graph(graph)}


def unreadable_golden_case(bundle: Bundle) -> dict[str, bytes]:
    return bundle.files | {"golden/red.png": b"\x89PNG\r\n\x1a\nxx"}


FAULTS: dict[Callable[[Bundle], dict[str, bytes]], str] = {
    of_another_library: "tokenizer.json: it is no tokenizer",
    graph_of_other_pictures: "encoders/image.onnx: ONNX Runtime cannot run this graph",
    graph_of_wider_features: "encoders/image.onnx: the output 'features' has the shape",
    unreadable_golden_case: "golden case 'image' could be read at export",
}


@pytest.mark.parametrize("spoilt", FAULTS)
def test_an_odd_bundle_harms_no_neighbour(
    tmp_path: Path, spoilt: Callable[[Bundle], dict[str, bytes]]
) -> None:
    """Its files are as its manifest says, and still it cannot be served."""
    odd = tiny.make(name="odd")
    tiny.write_files(tmp_path, odd, spoilt(odd))
    for name in ("even", "prime"):
        tiny.write(tmp_path, name=name)
    tried: list[str] = []
    load = loader(device=Device("cpu"), threads=1)

    def counting(path: Path) -> LiveModel:
        tried.append(path.parent.name)
        return load(path)

    models = Repository(tmp_path, counting, plan=Plan())
    models.start()
    for _ in range(2):
        models.reconcile()
    assert sorted(found(models, model.manifest.name)[0] for model in models) == ["even", "prime"]
    assert sorted(tried) == ["even", "odd", "prime"]
    [reason] = [one.reason for one in models.index() if one.name == "odd"]
    assert FAULTS[spoilt] in reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_harms_no_neighbour(tmp_path: Path) -> None:
    for name in ("closed", "open"):
        tiny.write(tmp_path, name=name)
    closed = tmp_path / "closed" / "1"
    closed.chmod(0)
    try:
        models = repository(tmp_path)
        assert [found(models)] == [("open", 1)]
        assert "cannot be read. Check its permissions." in models.index()[0].reason
        (tmp_path / "open").chmod(0)
        models.reconcile()
        assert [found(models)] == [("open", 1)]
    finally:
        closed.chmod(0o700)
        (tmp_path / "open").chmod(0o700)
    models.reconcile()
    assert found(models, "closed") == ("closed", 1)


def test_a_model_whose_folder_cannot_be_listed_serves_on(tmp_path: Path) -> None:
    for name in ("lost", "well"):
        tiny.write(tmp_path, name=name)
    models = repository(tmp_path)
    (tmp_path / "lost").rename(tmp_path / ".aside")
    (tmp_path / "lost").symlink_to("lost")  # a loop, which root cannot list either
    tiny.write(tmp_path, name="well", version=2)
    models.reconcile()
    assert found(models, "lost") == ("lost", 1)
    assert found(models, "well") == ("well", 2)


def test_a_bundle_that_is_copied_in_place_is_served_when_it_is_whole(tmp_path: Path) -> None:
    whole = tiny.write(tmp_path / "elsewhere", version=2)
    tiny.write(tmp_path / "models", version=1)
    models = repository(tmp_path / "models")
    copy = tmp_path / "models" / "tiny" / "2"
    shutil.copytree(whole, copy, ignore=shutil.ignore_patterns("tokenizer.json"))
    models.reconcile()
    assert found(models) == ("tiny", 1)
    shutil.copy(whole / "tokenizer.json", copy)
    models.reconcile()
    assert found(models) == ("tiny", 2)


@pytest.mark.parametrize("is_empty", [False, True], ids=["gone", "empty"])
def test_a_models_folder_that_is_gone_for_one_look_takes_nothing_with_it(
    tmp_path: Path, *, is_empty: bool
) -> None:
    folder, aside = tmp_path / "models", tmp_path / "aside"
    tiny.write(folder, version=1)
    models = repository(folder)
    folder.rename(aside)
    if is_empty:
        folder.mkdir()
    with pytest.raises(FolderUnreadable):
        models.reconcile()
    with pytest.raises(LoadFailed, match="cannot be read at present"):
        models.load("tiny")
    assert found(models) == ("tiny", 1)
    if is_empty:
        folder.rmdir()
    aside.rename(folder)
    tiny.write(folder, version=2)
    models.reconcile()
    assert found(models) == ("tiny", 2)


def test_a_model_that_is_removed_beside_others_is_served_no_more(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tiny.write(tmp_path, name=name)
    models = repository(tmp_path)
    shutil.rmtree(tmp_path / "one")
    models.reconcile()
    assert [found(models)] == [("two", 1)]


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
    assert not (folder / "tiny" / FILE).exists(), "what the settings say holds on"


def test_a_plan_that_was_there_is_there_again_when_another_cannot_be_followed(folder: Path) -> None:
    models = repository(folder)
    models.promote("tiny", 9)
    before = read_plan(folder / "tiny", Plan())
    with pytest.raises(LoadFailed):
        models.promote("tiny", 4)
    assert read_plan(folder / "tiny", Plan()) == before


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


def test_what_is_loaded_as_it_should_be_is_not_written_down(folder: Path) -> None:
    """So that it can be asked for where the folder is read-only."""
    models = repository(folder)
    tiny.write(folder, version=11)
    models.load("tiny")
    assert found(models) == ("tiny", 11)
    assert not (folder / "tiny" / FILE).exists()


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


def test_a_device_that_is_lost_ends_a_start_and_not_what_serves(tmp_path: Path) -> None:
    load, is_lost = loader(device=Device("cpu"), threads=1), True

    def losing(path: Path) -> LiveModel:
        if is_lost:
            raise DeviceUnavailable("The GPU is not there.")
        return load(path)

    tiny.write(tmp_path, version=1)
    models = Repository(tmp_path, losing, plan=Plan())
    with pytest.raises(DeviceUnavailable):
        models.start()
    is_lost = False
    models.start()
    is_lost = True
    tiny.write(tmp_path, version=2)
    models.reconcile()
    assert found(models) == ("tiny", 1)
    with pytest.raises(LoadFailed):
        models.promote("tiny", 2)
    assert found(models) == ("tiny", 1)
