from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from app.bundle.folder import Bundle, read_bundle, staged
from app.bundle.manifest import Inputs, Modality
from app.runtime.agreement import MOST_DIFFERENCE
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from tests.training.encoders.saved_models import save_model
from training.calibrate.conformal import lac_sets
from training.checkpoint import (
    METRICS_FILE,
    RUN_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    CheckpointInvalid,
    load_checkpoint,
    save_checkpoint,
)
from training.data.dataset import Dataset
from training.encoders.contract import EncoderUnfit
from training.encoders.specs import ConvText, MelAudio, PlainImage, PretrainedImage
from training.evaluate import evaluate
from training.export.bundle import Published, bundle_folder, parity_samples, publish
from training.export.card import model_card
from training.export.graphs import export_graphs
from training.export.parity import ParityBroken, check_parity
from training.progress import silent
from training.recipe import Recipe
from training.run import train

CPU = Device("cpu")


@pytest.fixture(scope="module")
def published(
    checkpoint: Checkpoint, recipe: Recipe, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    out = tmp_path_factory.mktemp("out")
    save_checkpoint(out, checkpoint)
    loaded = load_checkpoint(out, recipe)
    graphs = export_graphs(loaded.model, recipe.inputs)
    return publish(loaded, recipe, graphs, dataset.test, bundle_folder(out, recipe, number=4), number=4)


@pytest.fixture(scope="module")
def bundle(published: Published) -> Bundle:
    return read_bundle(published.folder)


def test_a_published_bundle_opens_and_replays(published: Published, bundle: Bundle) -> None:
    assert published.folder.parts[-3:] == ("bundle", "digits", "4")
    assert bundle.manifest.digest == published.digest
    replayed = replay(bundle, Predictor.open(bundle, device=CPU, threads=1))
    assert replayed.cases == 10
    assert replayed.largest_difference <= 1e-4


def test_both_exports_agree_with_torch_on_every_subset(
    published: Published, checkpoint: Checkpoint, bundle: Bundle, recipe: Recipe, dataset: Dataset
) -> None:
    found = check_parity(checkpoint.model, bundle, parity_samples(checkpoint, recipe, dataset.test))
    assert found.rows == len(dataset.test.pairing.rows(0))
    assert max(found.split_difference, found.fused_difference) <= MOST_DIFFERENCE
    assert found == published.parity


@pytest.mark.parametrize("bias", [1e-2, float("nan")])
def test_graphs_that_answer_otherwise_are_not_published(
    checkpoint: Checkpoint, bundle: Bundle, dataset: Dataset, recipe: Recipe, tmp_path: Path, bias: float
) -> None:
    other = copy.deepcopy(checkpoint.model)
    with torch.no_grad():
        other.fusion.heads[0].bias[0] += bias  # type: ignore[union-attr,index,operator]
    graphs = {path: body for path, body in bundle.files.items() if path.endswith(".onnx")}
    changed = replace(checkpoint, model=other.eval())
    with pytest.raises(ParityBroken, match="Nothing was published"):
        publish(changed, recipe, graphs, dataset.test, tmp_path / "digits/1", number=1)
    assert list(tmp_path.rglob("*")) == []


def test_a_version_is_published_once(published: Published) -> None:
    before = sorted(published.folder.rglob("*"))
    assert before
    with pytest.raises(FileExistsError, match="choose another version"), staged(published.folder):
        pytest.fail("a published folder was opened for writing")
    assert sorted(published.folder.rglob("*")) == before


def test_graphs_are_single_files_with_a_free_batch(bundle: Bundle) -> None:
    graphs = {path: body for path, body in bundle.files.items() if path.endswith(".onnx")}
    assert len(graphs) == 5
    for body in graphs.values():
        model = onnx.load_from_string(body)
        assert all(not tensor.external_data for tensor in model.graph.initializer)
        shapes = [value.type.tensor_type.shape.dim for value in [*model.graph.input, *model.graph.output]]
        assert {shape[0].dim_param for shape in shapes} == {"batch"}


def test_a_batch_answers_as_its_rows_do_alone(
    bundle: Bundle, checkpoint: Checkpoint, recipe: Recipe, dataset: Dataset
) -> None:
    predictor = Predictor.open(bundle, device=CPU, threads=1)
    samples = parity_samples(checkpoint, recipe, dataset.test)[:7]
    mixed = [
        replace(s, image=None) if at % 3 == 0 else replace(s, audio=None) if at % 3 == 1 else s
        for at, s in enumerate(samples)
    ]
    for together, sample in zip(predictor.run(mixed), mixed, strict=True):
        [alone] = predictor.run([sample])
        np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-5)


def test_the_card_tells_the_figures_of_the_manifest(bundle: Bundle, recipe: Recipe) -> None:
    assert bundle.files["README.md"].decode() == model_card(bundle.manifest, recipe)


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(CheckpointInvalid, match="holds no checkpoint of recipe digits"):
        load_checkpoint(tmp_path, recipe)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, TOKENIZER_FILE, RUN_FILE, METRICS_FILE])
def test_a_damaged_checkpoint_is_named(
    tmp_path: Path, checkpoint: Checkpoint, recipe: Recipe, name: str
) -> None:
    save_checkpoint(tmp_path, checkpoint)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointInvalid, match="holds no checkpoint of recipe digits"):
        load_checkpoint(tmp_path, recipe)


def test_pretrained_weights_that_are_gone_are_not_blamed_on_the_checkpoint(
    tmp_path: Path, checkpoint: Checkpoint, recipe: Recipe
) -> None:
    save_checkpoint(tmp_path, checkpoint)
    gone = PretrainedImage(save_model(tmp_path / "vit", "vit"), width=8)
    (tmp_path / "vit" / "model.safetensors").unlink()
    with pytest.raises(EncoderUnfit, match="cannot be read"):
        load_checkpoint(tmp_path, replace(recipe, encoders=recipe.encoders | {"image": gone}))


def test_sets_are_in_the_graph_and_hold_the_most_probable_class(
    bundle: Bundle, checkpoint: Checkpoint, recipe: Recipe, dataset: Dataset
) -> None:
    predictor = Predictor.open(bundle, device=CPU, threads=1)
    conformal = checkpoint.calibrated.conformal
    assert conformal is not None
    for outputs in predictor.run(parity_samples(checkpoint, recipe, dataset.test)):
        assert outputs.prediction_set is not None
        assert outputs.prediction_set[outputs.probabilities.argmax()]
        inside = lac_sets(outputs.logits[None], conformal.lac["image+text+audio"])[0]
        chosen = inside | (outputs.logits == outputs.logits.max())
        np.testing.assert_array_equal(outputs.prediction_set, chosen)


@pytest.mark.thorough
@pytest.mark.parametrize("names", [("image", "text"), ("audio",)], ids="+".join)
def test_a_model_of_fewer_modalities_is_published_too(
    recipe: Recipe, dataset: Dataset, tmp_path: Path, names: tuple[Modality, ...]
) -> None:
    fewer = replace(
        recipe,
        inputs=Inputs(**{name: recipe.inputs.encoder(name) for name in names}),
        encoders={name: recipe.encoders[name] for name in names},
        schedule=replace(recipe.schedule, epochs=1),
        strangers=None,
    )
    trained = train(fewer, dataset, seed=0, stage=silent)
    checkpoint, _ = evaluate(trained, fewer, dataset, seed=0, stage=silent)
    graphs = export_graphs(checkpoint.model, fewer.inputs)
    published = publish(checkpoint, fewer, graphs, dataset.test, tmp_path / "digits/1", number=1)
    assert read_bundle(published.folder).manifest.inputs.names == names


@pytest.mark.thorough  # as feature/attention of test_combinations, but trained
def test_a_fusion_that_reads_tokens_is_published_too(
    recipe: Recipe, dataset: Dataset, tmp_path: Path
) -> None:
    reading = replace(
        recipe,
        encoders={
            "image": PlainImage(channels=(4, 6, 8, 8), width=8, tokens=4),
            "text": ConvText(channels=8, width=8, tokens=3),
            "audio": MelAudio(channels=(4, 6, 8, 8), bands=40, width=8, tokens=2),
        },
        schedule=replace(recipe.schedule, epochs=1),
        strangers=None,
    ).with_fusion("feature", "attention")
    trained = train(reading, dataset, seed=0, stage=silent)
    checkpoint, _ = evaluate(trained, reading, dataset, seed=0, stage=silent)
    graphs = export_graphs(checkpoint.model, reading.inputs)
    published = publish(checkpoint, reading, graphs, dataset.test, tmp_path / "digits/1", number=1)
    manifest = read_bundle(published.folder).manifest
    assert manifest.inputs.image is not None
    assert manifest.inputs.image.features == 8 * 5
    assert (manifest.fusion.level, manifest.fusion.method) == ("feature", "attention")
