"""How one encoder does on sources it never met: trained again without each, such as a speaker, in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, Inputs, Modality
from training.batch import Stock
from training.checkpoint import vocabulary_size
from training.data.dataset import ABSENT, Dataset, FixedRows, Rows, Split
from training.encodings import encode
from training.fit.chance import make_repeatable
from training.fit.distributed import World
from training.fit.draw import Drawer
from training.fit.loop import fit
from training.fit.study import study
from training.fusion.contract import FusionSpec
from training.measure.scores import is_right
from training.model import Model
from training.progress import Stage
from training.recipe import Recipe, Strangers
from training.run import evaluation_rows, preparer_of


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
        "train": _lone_rows(dataset.train, measured.modality),
        "validation": _lone_rows(dataset.validation, measured.modality),
        "test": _lone_rows(dataset.test, measured.modality),
    }
    stocks = {name: Stock(split.items, lone.inputs, tokenize) for name, (split, _) in splits.items()}
    found: dict[str, float] = {}
    for value in sorted(set(splits["test"][1].columns[measured.column].tolist())):
        make_repeatable(seed=seed, threads=recipe.schedule.threads)
        model = Model(lone, vocabulary=vocabulary)
        split, rows = splits["train"]
        others = Split(split.items, FixedRows(rows.take(rows.columns[measured.column] != value)))
        drawer = Drawer(others, stocks["train"], lone, seed=seed, world=World())
        study(model, others, stocks["train"], labels=len(lone.labels), seed=seed)
        with stage(f"without {value}") as report:
            fit(model, drawer, lone, seed=seed, device=torch.device("cpu"), report=report)
        right = [
            _right(model, stocks[name], one.items.counts, of.take(of.columns[measured.column] == value))
            for name, (one, of) in splits.items()
        ]
        found[value] = float(np.concatenate(right).mean())
    return found


def _alone(recipe: Recipe, measured: Strangers) -> Recipe:
    """The recipe with one modality only."""
    name = measured.modality
    schedule = recipe.schedule
    return replace(
        recipe,
        inputs=Inputs(**{name: recipe.inputs.encoder(name)}),
        encoders={name: recipe.encoders[name]},
        fusion=FusionSpec(
            level="prediction", method="mean", width=recipe.fusion.width, embedding=recipe.fusion.width
        ),
        schedule=replace(
            schedule, epochs=measured.epochs, batch_size=max(2, schedule.batch_size // 2), patience=None
        ),
    )


def _lone_rows(split: Split, modality: Modality) -> tuple[Split, Rows]:
    """One row for each item of the modality that is in some row, without the others."""
    rows = evaluation_rows(split)
    at = MODALITIES.index(modality)
    items, first = np.unique(rows.items[:, at], return_index=True)
    chosen = rows.take(first[items != ABSENT])
    lone = np.full_like(chosen.items, ABSENT)
    lone[:, at] = chosen.items[:, at]
    kept = Rows(items=lone, targets=chosen.targets, groups=chosen.groups, columns=chosen.columns)
    return Split(split.items, FixedRows(kept)), kept


def _right(model: Model, stock: Stock, counts: dict[Modality, int], rows: Rows) -> NDArray[np.bool_]:
    answered = encode(model, stock, counts).answers(rows, model.names[0])
    return is_right(answered.probabilities, answered.rows.targets.astype(np.int64))
