from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.alone import Taught, recipe_alone, teach
from training.batch import Stock
from training.checkpoint import vocabulary_size
from training.data.dataset import ABSENT, Dataset, PairedByClass, Split
from training.encoders.specs import RecallText
from training.encodings import Encodings, encode, presence_of
from training.evaluate import evaluate
from training.export.bundle import publish
from training.export.graphs import export_graphs
from training.fit.folds import in_fold
from training.model import Model
from training.progress import silent
from training.recipe import Alone, Recipe
from training.run import evaluation_rows, preparer_of, tokenizer_of, train

FOLDS = 3
ALONE = Alone(
    modality="text", epochs=2, batch_size=32, learning_rate=1e-3, weight_decay=0.0, folds=FOLDS
)  # of few steps: nothing is learned


@pytest.fixture(scope="module")
def lone(recipe: Recipe) -> Recipe:
    text = RecallText(texts=2_000, buckets=64, width=len(recipe.labels))
    return replace(recipe, encoders=recipe.encoders | {"text": text}, is_by_sound=True, alone=ALONE)


def in_joint(model: Model) -> dict[str, torch.Tensor]:
    at = model.names.index("text")
    parts = {
        "encoder": model.encoder("text"),
        "tower": model.fusion.towers[at],
        "head": model.fusion.heads[at],
    }
    return {f"{part}.{name}": one for part, of in parts.items() for name, one in of.state_dict().items()}


@pytest.mark.parametrize("kind", ["its own tower", "what is remembered"])
def test_what_learned_alone_stays_as_it_is(kind: str, recipe: Recipe, lone: Recipe, dataset: Dataset) -> None:
    """However long the others learn; and they learn."""
    one = lone if kind == "what is remembered" else replace(recipe, alone=replace(ALONE, folds=0))
    longer = replace(one, schedule=replace(one.schedule, epochs=one.schedule.epochs + 1))
    short, long = (train(each, dataset, seed=1, stage=silent).model for each in (one, longer))
    torch.testing.assert_close(in_joint(short), in_joint(long), rtol=0, atol=0)
    image, other = (model.encoder("image").state_dict() for model in (short, long))
    assert any(not torch.equal(image[name], other[name]) for name in image)


class Lone:
    """The seams of `teach`, with models that are not trained, and the rows that they were asked to learn."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.recipe, tokenizer = recipe_alone(recipe, ALONE), tokenizer_of(recipe, dataset)
        self.tokenize, self.vocabulary = preparer_of(recipe, tokenizer), vocabulary_size(tokenizer)
        self.learnt: dict[str, Split] = {}

    def fitted(self, split: Split, state: str) -> Model:
        self.learnt[state] = split
        torch.manual_seed(len(self.learnt))
        return Model(self.recipe, vocabulary=self.vocabulary).eval()

    def encoded(self, model: Model, split: Split) -> Encodings:
        return encode(model, Stock(split.items, self.recipe.inputs, self.tokenize), split.items.counts)


@pytest.fixture(scope="module")
def taught(recipe: Recipe, dataset: Dataset) -> tuple[Lone, Taught]:
    seams = Lone(replace(recipe, alone=ALONE), dataset)
    return seams, teach(ALONE, dataset, seams.fitted, seams.encoded, seed=7)


def test_each_group_is_left_out_by_one_model(taught: tuple[Lone, Taught], dataset: Dataset) -> None:
    every = set(dataset.train.pairing.rows(7).groups[:, 1].tolist())
    left = []
    for fold in range(FOLDS):
        rows = taught[0].learnt[f"alone{fold}"].pairing.rows(0)
        assert (rows.items[:, [0, 2]] == ABSENT).all()
        left.append(every - set(rows.groups[:, 1].tolist()))
    assert set.union(*left) == every
    assert sum(map(len, left)) == len(every)


def test_items_are_answered_by_the_model_that_did_not_see_them(
    taught: tuple[Lone, Taught], dataset: Dataset
) -> None:
    seams, found = taught
    assert found.unseen is not None
    torch.manual_seed(1 + 1 + 2)  # of the third fold: the model of all rows comes first
    third = Model(seams.recipe, vocabulary=seams.vocabulary).eval()
    [features] = seams.encoded(third, dataset.train).features.values()
    said = third.fuse((features,), torch.ones(len(features), 1, dtype=torch.bool)).modality_logits[:, 0]
    rows = dataset.train.pairing.rows(7)
    mine = np.unique(rows.items[in_fold(rows, 2, FOLDS)[:, 1], 1])
    torch.testing.assert_close(found.unseen[mine], said[mine].detach())


def test_calibration_rows_draw_from_both_splits_and_share_no_group(
    taught: tuple[Lone, Taught], recipe: Recipe, dataset: Dataset
) -> None:
    seams, found = taught
    assert found.unseen is not None
    model = Model(recipe, vocabulary=seams.vocabulary).eval()
    own = evaluation_rows(dataset.validation)
    stock = Stock(dataset.validation.items, recipe.inputs, seams.tokenize)
    crossed, rows = found.crossed(encode(model, stock, dataset.validation.items.counts), dataset, seed=7)
    train_texts = dataset.train.items.count("text")
    assert (rows.items[:, 0] == own.items[:, 0]).all()
    learnt = rows.items[:, 1] < train_texts
    assert 0 < learnt.sum() < len(rows)
    assert not set(rows.groups[learnt, 1].tolist()) & set(rows.groups[~learnt, 1].tolist())
    pairing = dataset.train.pairing
    assert isinstance(pairing, PairedByClass)
    assert (pairing.by_modality["text"].labels[rows.items[learnt, 1]] == rows.targets[learnt]).all()
    text = crossed.raw(rows, presence_of(model.names, "text", len(rows)))
    torch.testing.assert_close(text.modality_logits[:, 1], found.unseen[rows.items[:, 1]])


def test_calibrated_answers_are_the_raw_ones_over_the_temperature(
    taught: tuple[Lone, Taught], recipe: Recipe, dataset: Dataset
) -> None:
    seams, found = taught
    model = Model(recipe, vocabulary=seams.vocabulary).eval()
    stock = Stock(dataset.validation.items, recipe.inputs, seams.tokenize)
    crossed, rows = found.crossed(encode(model, stock, dataset.validation.items.counts), dataset, seed=7)
    model.temperatures.fill_(2.0)
    raw = crossed.raw(rows, presence_of(model.names, "image+text", len(rows))).logits
    np.testing.assert_allclose(crossed.logits(rows, "image+text"), raw / 2, rtol=1e-5)


def test_what_meets_before_it_answers_learns_together(lone: Recipe) -> None:
    assert lone.with_fusion("feature", "concat").alone is None
    assert lone.with_fusion("prediction", "stacking").alone is None
    assert lone.with_fusion("prediction", "mean").alone == ALONE


@pytest.mark.thorough
def test_what_learned_alone_is_measured_and_published(lone: Recipe, dataset: Dataset, tmp_path: Path) -> None:
    """An encoder that answers by itself has no head in the graphs, and they answer as torch does."""
    one = replace(lone, strangers=None, degradation=None)
    trained = train(one, dataset, seed=0, stage=silent)
    checkpoint, _ = evaluate(trained, one, dataset, seed=0, stage=silent)
    graphs = export_graphs(checkpoint.model, one.inputs)
    published = publish(checkpoint, one, graphs, dataset.test, tmp_path / one.name / "1", number=1)
    assert published.parity.flips == 0
