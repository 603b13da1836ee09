"""How one encoder does on sources it never met: trained again without each, such as a speaker, in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from app.bundle.manifest import Modality
from training.batch import Stock
from training.checkpoint import vocabulary_size
from training.data.dataset import Dataset, FixedRows, Rows, Split
from training.encodings import encode
from training.fit.chance import make_repeatable
from training.fit.distributed import World
from training.fit.draw import Drawer
from training.fit.loop import fit
from training.lone import lone_recipe, lone_rows
from training.measure.scores import is_right
from training.model import Model
from training.progress import Stage
from training.recipe import Recipe, Strangers
from training.run import EVALUATION_SEED, preparer_of


def accuracy_on_strangers(
    recipe: Recipe,
    measured: Strangers,
    dataset: Dataset,
    tokenizer_json: bytes | None,
    *,
    seed: int,
    stage: Stage,
) -> dict[str, float]:
    """For each value of the column: trained on training rows of all others, asked about all rows of it."""
    lone = _alone(recipe, measured)
    tokenize, vocabulary = preparer_of(lone, tokenizer_json), vocabulary_size(tokenizer_json)
    splits = {
        "train": lone_rows(dataset.train, measured.modality, seed=EVALUATION_SEED),
        "validation": lone_rows(dataset.validation, measured.modality, seed=EVALUATION_SEED),
        "test": lone_rows(dataset.test, measured.modality, seed=EVALUATION_SEED),
    }
    stocks = {name: Stock(split.items, lone.inputs, tokenize) for name, (split, _) in splits.items()}
    found: dict[str, float] = {}
    for value in sorted(set(splits["test"][1].columns[measured.column].tolist())):
        make_repeatable(seed=seed, threads=recipe.schedule.threads)
        model = Model(lone, vocabulary=vocabulary)
        split, rows = splits["train"]
        others = Split(split.items, FixedRows(rows.take(rows.columns[measured.column] != value)))
        drawer = Drawer(others, stocks["train"], lone, seed=seed, world=World())
        with stage(f"without {value}") as report:
            fit(model, drawer, lone, seed=seed, device=torch.device("cpu"), report=report)
        right = [
            _right(model, stocks[name], one.items.counts, of.take(of.columns[measured.column] == value))
            for name, (one, of) in splits.items()
        ]
        found[value] = float(np.concatenate(right).mean())
    return found


def _alone(recipe: Recipe, measured: Strangers) -> Recipe:
    schedule = recipe.schedule
    return lone_recipe(
        recipe,
        measured.modality,
        replace(schedule, epochs=measured.epochs, batch_size=max(2, schedule.batch_size // 2), patience=None),
    )


def _right(model: Model, stock: Stock, counts: dict[Modality, int], rows: Rows) -> NDArray[np.bool_]:
    answered = encode(model, stock, counts).answers(rows, model.names[0])
    return is_right(answered.probabilities, answered.rows.targets.astype(np.int64))
