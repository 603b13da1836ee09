"""One modality by itself: the recipe that reads nothing else, and each of a split's items as one row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from app.bundle.manifest import MODALITIES, Inputs, Modality
from training.data.dataset import ABSENT, FixedRows, Rows, Split
from training.fusion.contract import FusionSpec
from training.recipe import Recipe, Schedule


def lone_recipe(recipe: Recipe, name: Modality, schedule: Schedule) -> Recipe:
    """The tower and the head are those that the modality has where answers are joined."""
    width = recipe.fusion.width
    return replace(
        recipe,
        inputs=Inputs(**{name: recipe.inputs.encoder(name)}),
        encoders={name: recipe.encoders[name]},
        fusion=FusionSpec(
            level="prediction", method="mean", width=width, embedding=width, dropout=recipe.fusion.dropout
        ),
        schedule=schedule,
        alone=None,
    )


def lone_rows(split: Split, modality: Modality, *, seed: int) -> tuple[Split, Rows]:
    """One row for each item of the modality that is in some row, without the others."""
    rows = split.pairing.rows(seed)
    at = MODALITIES.index(modality)
    items, first = np.unique(rows.items[:, at], return_index=True)
    chosen = rows.take(first[items != ABSENT])
    lone = np.full_like(chosen.items, ABSENT)
    lone[:, at] = chosen.items[:, at]
    kept = Rows(items=lone, targets=chosen.targets, groups=chosen.groups, columns=chosen.columns)
    return Split(split.items, FixedRows(kept)), kept
