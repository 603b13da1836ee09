from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.bundle.folder import read_bundle
from tests.training.tiny_xor import tiny_xor, tiny_xor_that_keeps_pictures
from training.batch import Stock
from training.data.items import Clips, Images, Items, Texts
from training.data.xor import ATTAINABLE
from training.evaluate import evaluate
from training.export.bundle import publish
from training.export.graphs import export_graphs
from training.model import Model
from training.progress import silent
from training.recipe import Recipe
from training.recipes.registry import RECIPES
from training.run import preparer_of, train
from training.tokenizer import train_tokenizer

WORDS = ("one two three", "drei")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_as_it_is_found_and_tells_what_it_is(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert recipe.about.rows
    assert recipe.about.data
    assert len(set(recipe.labels)) == len(recipe.labels) > 1
    assert json.loads(json.dumps(recipe.settings()))["recipe"] == name


@pytest.mark.parametrize("name", ["digits", "avt_digits", "article", "xor"])
def test_a_recipes_model_reads_what_its_inputs_promise(name: str) -> None:
    """Its shortest recording and a text of few words, at the sizes that serving will send."""
    recipe = RECIPES[name]()
    tokenizer = train_tokenizer(WORDS, most_tokens=300, is_by_sound=recipe.is_by_sound)
    tokenize = preparer_of(recipe, tokenizer)
    assert tokenize is not None
    image, audio = recipe.inputs.image, recipe.inputs.audio
    assert image is not None
    assert audio is not None
    items = Items(
        images=Images(np.zeros((2, image.height, image.width, 1), np.uint8)),
        texts=Texts(WORDS),
        clips=Clips.of(np.zeros(audio.min_samples, np.float32) for _ in range(2)),
    )
    batch = Stock(items, recipe.inputs, tokenize).batch(
        np.array([[0, 0, 0], [1, 1, 1]]), torch.tensor([[True, True, True], [False, True, False]])
    )
    model = Model(recipe, vocabulary=tokenize.vocabulary).eval()
    fused = model(batch)
    assert fused.logits.shape == (2, len(recipe.labels))
    assert fused.embedding.shape == (2, recipe.fusion.embedding)
    assert torch.isfinite(fused.logits).all()


@pytest.mark.thorough  # tests/training/export/test_bundle.py does the same with a recipe of its own
@pytest.mark.parametrize("made", [tiny_xor, tiny_xor_that_keeps_pictures])
def test_xor_is_trained_measured_and_published(tmp_path: Path, made: Callable[[], Recipe]) -> None:
    recipe = made()
    dataset = recipe.load(None, None)  # type: ignore[arg-type]  # made from a seed, not read
    trained = train(recipe, dataset, seed=0, stage=silent)
    checkpoint, found = evaluate(trained, recipe, dataset, seed=0, stage=silent)
    assert set(found.test.by_subset) == set(ATTAINABLE)
    graphs = export_graphs(checkpoint.model, recipe.inputs)
    published = publish(checkpoint, recipe, graphs, dataset.test, tmp_path / "xor" / "1", number=1)
    assert published.parity.flips == 0
    manifest = read_bundle(tmp_path / "xor" / "1").manifest
    assert tuple(manifest.labels) == recipe.labels
