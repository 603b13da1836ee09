"""A modality that learns by itself before the others, and is calibrated by groups it did not learn from.

Three hundred words are known by heart long before fifty thousand pictures have been seen. So the modality is
trained on its items alone, each once an epoch, and its encoder, tower and head are put into the joint model,
where they stay as they are: where answers are joined, towers learn from their own answers only.

How far to trust it on new groups, such as languages, is told by groups that it did not learn from. Validation
has few. So training groups are asked, too, by models that were trained in the same way without a share of
them each: cross-fitting, as for stacking (Wolpert 1992). Only answers of such models are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from app.bundle.manifest import MODALITIES, Modality
from training.data.dataset import Dataset, PairedByClass, Pairing, Rows, Split
from training.data.items import Labelled
from training.encodings import Encodings
from training.fit.folds import WithoutFold, in_fold
from training.lone import lone_recipe, lone_rows
from training.model import Model
from training.recipe import Alone, Recipe

Fitted = Callable[[Split, str], Model]
"""Trains a model that reads this modality only, on rows of these; by the name of its state."""
Encoded = Callable[[Model, Split], Encodings]


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """`unseen` [items of train, then of validation; labels] are answers of models that had not seen the group
    of the item; None where there are no folds."""

    name: Modality
    model: Model
    unseen: Tensor | None

    def lend(self, model: Model) -> None:
        """Put what was learnt into the joint model, where it is not trained."""
        at = model.names.index(self.name)
        for own, learnt in (
            (model.encoder(self.name), self.model.encoder(self.name)),
            (model.fusion.towers[at], self.model.fusion.towers[0]),
            (model.fusion.heads[at], self.model.fusion.heads[0]),
        ):
            own.load_state_dict(learnt.state_dict())
            own.requires_grad_(requires_grad=False)

    def crossed(self, validation: Encodings, dataset: Dataset, *, seed: int) -> tuple[Encodings, Rows]:
        """Validation rows in which items of training and validation stand, answered as if never seen."""
        assert self.unseen is not None, "there are folds"
        rows = _across(dataset, self.name).rows(seed)
        blank = torch.zeros(len(self.unseen), validation.features[self.name].shape[1])
        features = validation.features | {self.name: blank}
        return Encodings(validation.model, features, instead={self.name: self.unseen}), rows


def recipe_alone(recipe: Recipe, alone: Alone) -> Recipe:
    schedule = replace(
        recipe.schedule,
        epochs=alone.epochs,
        batch_size=alone.batch_size,
        learning_rate=alone.learning_rate,
        weight_decay=alone.weight_decay,
        label_smoothing=0.0,
        drop_modality=0.0,
        patience=None,
        tower_epochs=0,
        modulation=0.0,
        is_bfloat16=False,
    )
    return lone_recipe(recipe, alone.modality, schedule)


def teach(alone: Alone, dataset: Dataset, fitted: Fitted, encoded: Encoded, *, seed: int) -> Taught:
    """`seed` pairs the rows that items are taken from."""
    name, at = alone.modality, MODALITIES.index(alone.modality)
    split, rows = lone_rows(dataset.train, name, seed=seed)
    model = fitted(split, "alone")
    if not alone.folds:
        return Taught(name, model, unseen=None)
    unseen = torch.zeros(dataset.train.items.count(name), model.fusion.shape.labels)
    for fold in range(alone.folds):
        others = Split(split.items, WithoutFold(split.pairing, fold, alone.folds))
        without = fitted(others, f"alone{fold}")
        chosen = torch.from_numpy(rows.items[in_fold(rows, fold, alone.folds)[:, at], at])
        unseen[chosen] = _answers(encoded(without, split))[chosen]
    validation = _answers(encoded(model, dataset.validation))
    return Taught(name, model, unseen=torch.cat([unseen, validation]))


def _answers(encodings: Encodings) -> Tensor:
    """Of each item of the only modality, before any temperature: [items, labels]."""
    [features] = encodings.features.values()
    present = torch.ones(len(features), 1, dtype=torch.bool)
    return encodings.fused((features,), present).modality_logits[:, 0]


def _across(dataset: Dataset, name: Modality) -> PairedByClass:
    """The rows of validation, with items of both splits to draw from."""
    train, validation = _paired(dataset.train.pairing), _paired(dataset.validation.pairing)
    first, second = train.by_modality[name], validation.by_modality[name]
    both = Labelled(
        labels=np.concatenate([first.labels, second.labels]),
        groups=np.concatenate([first.groups, second.groups + first.groups.max() + 1]),
        columns={
            column: np.concatenate([first.columns[column], second.columns[column]])
            for column in first.columns
        },
    )
    return replace(validation, by_modality=validation.by_modality | {name: both})


def _paired(pairing: Pairing) -> PairedByClass:
    assert isinstance(pairing, PairedByClass), "`folds` of `alone` is for rows that are paired by class"
    return pairing
