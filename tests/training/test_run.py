from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from app.bundle.prepare import TextPreparer
from tests.training.elsewhere import elsewhere
from tests.training.tiny_xor import tiny_xor_by_likeness
from training.checkpoint import Checkpoint
from training.data.dataset import Dataset
from training.evaluate import Evaluation
from training.progress import silent
from training.recipe import Alone, Recipe
from training.run import Where, train
from training.subsets import SUBSETS


def test_one_seed_gives_one_result(recipe: Recipe, dataset: Dataset, checkpoint: Checkpoint) -> None:
    again = train(recipe, dataset, seed=3, stage=silent)
    assert again.tokenizer_json == checkpoint.tokenizer_json
    assert again.calibrated == checkpoint.calibrated
    for name, weights in checkpoint.model.state_dict().items():
        assert torch.equal(weights, again.model.state_dict()[name]), name


@pytest.mark.parametrize(
    "kind",
    ["validated", "taught alone", "left out", pytest.param("out of fold", marks=pytest.mark.thorough)],
)
def test_a_run_on_another_device_gives_what_one_on_the_cpu_does(
    kind: str, recipe: Recipe, dataset: Dataset
) -> None:
    schedule = replace(recipe.schedule, epochs=1, patience=1, average=0.9)
    alone = Alone("text", epochs=1, batch_size=64, learning_rate=1e-3, weight_decay=0.0, folds=2)
    one = {
        "validated": replace(recipe, schedule=schedule),
        "taught alone": replace(recipe, alone=alone),
        "out of fold": recipe.with_fusion("prediction", "stacking"),
        "left out": tiny_xor_by_likeness(),
    }[kind]
    rows = one.load(None, None) if kind == "left out" else dataset  # type: ignore[arg-type]  # made from a seed
    here = train(one, rows, seed=3, stage=silent)
    with elsewhere() as device:
        there = train(one, rows, seed=3, stage=silent, where=Where(device=device))
    assert there.calibrated == here.calibrated
    assert there.model.device.type == "cpu"
    for name, weights in here.model.state_dict().items():
        assert torch.equal(weights, there.model.state_dict()[name]), name


def test_another_seed_gives_another_result(recipe: Recipe, dataset: Dataset, checkpoint: Checkpoint) -> None:
    other = train(recipe, dataset, seed=4, stage=silent)
    one, another = (model.fusion.heads[0].weight for model in (checkpoint.model, other.model))
    assert not torch.equal(one, another)  # type: ignore[arg-type]


def test_each_speaker_is_left_out_once(dataset: Dataset, checkpoint: Checkpoint) -> None:
    found = checkpoint.metrics["strangers"]
    assert set(found) == set(dataset.train.pairing.rows(0).columns["speaker"].tolist())
    assert all(0 <= share <= 1 for share in found.values())


def test_the_tables_cover_every_subset(checkpoint: Checkpoint) -> None:
    metrics = checkpoint.metrics
    assert set(metrics["test"]) == set(metrics["degraded"]) == set(SUBSETS)
    values = [
        scored["accuracy"]["value"] for table in ("test", "degraded") for scored in metrics[table].values()
    ]
    assert np.isfinite(values).all()
    assert metrics["test"]["audio"]["groups"] < metrics["rows"]  # distinct clips, not rows
    assert set(metrics["coverage"]["lac"]) == set(SUBSETS)
    assert set(metrics["slices"]) == {"spelling", "speaker"}


def test_every_modality_is_spoiled_by_degrees(measured: tuple[Checkpoint, Evaluation]) -> None:
    curves = {(curve.spoiled, curve.subset) for curve in measured[1].curves}
    assert curves == {(name, subset) for name in ("image", "text", "audio") for subset in (name, SUBSETS[-1])}


@pytest.mark.parametrize("method", ["mean", "weighted", "multiply", "log_linear", "stacking"])
def test_answers_are_joined_by_what_was_fitted_on_other_rows(
    recipe: Recipe, dataset: Dataset, method: str
) -> None:
    trained = train(recipe.with_fusion("prediction", method), dataset, seed=0, stage=silent)  # type: ignore[arg-type]
    assert all(math.isfinite(value) for value in trained.calibrated.temperatures.values())


def test_encoders_that_leave_out_let_training_rows_settle_how_much_each_counts() -> None:
    made = tiny_xor_by_likeness()
    dataset = made.load(None, None)  # type: ignore[arg-type]  # made from a seed, not read
    one = train(made, dataset, seed=0, stage=silent).model
    other = train(made, replace(dataset, validation=dataset.test), seed=0, stage=silent).model
    assert torch.equal(one.fusion.state_dict()["settled"], other.fusion.state_dict()["settled"])
    assert one.fusion.state_dict()["settled"].any()
    assert not torch.equal(one.temperatures, other.temperatures)


def test_towers_alone_and_modulation_are_trained_too(recipe: Recipe, dataset: Dataset) -> None:
    schedule = replace(recipe.schedule, tower_epochs=1, modulation=0.5, is_balanced=True, is_bfloat16=True)
    trained = train(replace(recipe, schedule=schedule), dataset, seed=0, stage=silent)
    assert all(torch.isfinite(weights).all() for weights in trained.model.parameters())


def test_texts_are_tokenized_once_a_run_however_many_epochs_are_validated(
    recipe: Recipe, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Counted(TextPreparer):
        def __call__(self, text: str):  # type: ignore[no-untyped-def]
            asked.append(text)
            return super().__call__(text)

    monkeypatch.setattr("training.run.TextPreparer", Counted)
    train(replace(recipe, schedule=replace(recipe.schedule, patience=5)), dataset, seed=0, stage=silent)
    assert len(asked) == dataset.train.items.count("text") + dataset.validation.items.count("text")
