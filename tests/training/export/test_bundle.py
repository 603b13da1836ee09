from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from training.card import model_card
from training.data.corpus import Corpus
from training.onnx_graphs import export_graphs
from training.parity import MOST_DIFFERENCE, ParityBroken, check_parity

from app.bundle.folder import Bundle, read_bundle, staged
from app.runtime.golden import replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from training.checkpoint import (
    Checkpoint,
    CheckpointInvalid,
    load_checkpoint,
    save_checkpoint,
    vocabulary_size,
)
from training.export import Published, bundle_folder, parity_samples, publish
from training.model import Model
from training.recipe import Recipe

CPU = Device("cpu")


@pytest.fixture(scope="module")
def published(
    checkpoint: Checkpoint, recipe: Recipe, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    out = tmp_path_factory.mktemp("out")
    save_checkpoint(out, checkpoint)
    loaded = load_checkpoint(out, recipe)
    graphs = export_graphs(loaded.model, recipe.inputs)
    return publish(loaded, recipe, graphs, corpus.test, bundle_folder(out, recipe, number=4), number=4)


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
    published: Published, checkpoint: Checkpoint, bundle: Bundle, corpus: Corpus
) -> None:
    found = check_parity(checkpoint.model, bundle, parity_samples(corpus.test, bundle))
    assert found.rows == len(corpus.test.images.labels)
    assert max(found.split_difference, found.fused_difference) <= MOST_DIFFERENCE
    assert found == published.parity


@pytest.mark.parametrize("bias", [1e-2, float("nan")])
def test_graphs_that_answer_otherwise_are_not_published(
    checkpoint: Checkpoint, bundle: Bundle, corpus: Corpus, recipe: Recipe, tmp_path: Path, bias: float
) -> None:
    other = Model(recipe, vocabulary=vocabulary_size(checkpoint.tokenizer_json))
    other.load_state_dict(checkpoint.model.state_dict())
    with torch.no_grad():
        other.fusion.classify.bias[0] += bias
    graphs = {path: body for path, body in bundle.files.items() if path.endswith(".onnx")}
    changed = replace(checkpoint, model=other.eval())
    with pytest.raises(ParityBroken, match="Nothing was published"):
        publish(changed, recipe, graphs, corpus.test, tmp_path / "digits/1", number=1)
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


def test_a_batch_answers_as_its_rows_do_alone(bundle: Bundle, corpus: Corpus) -> None:
    predictor = Predictor.open(bundle, device=CPU, threads=1)
    samples = parity_samples(corpus.test, bundle)[:7]
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
