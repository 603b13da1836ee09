"""Which fusion a recipe should have: the first named, unless another is better beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import subset_name, subsets
from training.batch import Stock
from training.data.dataset import Dataset, Rows
from training.encodings import Encodings, encode, rows_with
from training.measure.multilabel import row_nll_of_labels
from training.measure.paired import Paired, compare_rows
from training.measure.scores import is_right, row_nll
from training.measure.subsets import groups_of
from training.recipe import Recipe
from training.run import Trained, evaluation_rows, preparer_of


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A candidate on the validation rows that bring every modality: means over the subsets of modalities."""

    name: str  # LEVEL/METHOD
    nll: NDArray[np.float64]  # [rows], nats
    right: NDArray[np.float64]  # [rows]
    groups: NDArray[np.int64]  # [rows]


@dataclass(frozen=True, slots=True)
class Choice:
    """`against_first` compares each later candidate with the first one."""

    chosen: str
    nll: dict[str, float]
    accuracy: dict[str, float]
    against_first: dict[str, Paired]


def judge(trained: Trained, recipe: Recipe, dataset: Dataset) -> Judged:
    """On validation rows; test rows are never looked at to choose."""
    split, names = dataset.validation, recipe.inputs.names
    stock = Stock(split.items, recipe.inputs, preparer_of(recipe, trained.tokenizer_json))
    encodings = encode(trained.model, stock, split.items.counts)
    rows = rows_with(evaluation_rows(split), subset_name(names))
    said = [_said(encodings, subset, rows) for subset in subsets(names)]
    return Judged(
        name=f"{recipe.fusion.level}/{recipe.fusion.method}",
        nll=np.mean([nll for nll, _ in said], axis=0),
        right=np.mean([right for _, right in said], axis=0),
        groups=groups_of(rows.groups, subset_name(names)),
    )


def choose(candidates: Sequence[Judged]) -> Choice:
    """The first stands unless the whole 95 % interval of another's difference in NLL is below zero.

    Of several such, the one with the lowest NLL. Intervals are of a paired bootstrap over groups.
    """
    first, *others = candidates
    against = {
        other.name: compare_rows(
            nll=(other.nll, first.nll), right=(other.right, first.right), groups=first.groups
        )
        for other in others
    }
    winners = [other for other in others if against[other.name].challenger_wins]
    chosen = min(winners, key=lambda other: float(other.nll.mean()), default=first)
    return Choice(
        chosen=chosen.name,
        nll={one.name: float(one.nll.mean()) for one in candidates},
        accuracy={one.name: float(one.right.mean()) for one in candidates},
        against_first=against,
    )


def _said(encodings: Encodings, subset: str, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NLL and the share that is right, [rows] each, of one subset's calibrated answers."""
    likely = encodings.likelihood(encodings.logits(rows, subset))
    if rows.targets.ndim == 2:
        wanted = rows.targets.astype(np.float64)
        return row_nll_of_labels(likely, wanted), ((likely > 0.5) == (wanted > 0.5)).mean(axis=1)
    classes = rows.targets.astype(np.int64)
    return row_nll(likely, classes), is_right(likely, classes).astype(np.float64)
