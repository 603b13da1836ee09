"""Which items belong together, in three splits: what a recipe learns from and is measured on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, Modality
from training.data.items import Items, Labelled

ABSENT: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Item numbers side by side. A modality that a row lacks is `ABSENT` and is never filled.

    Rows that share a number in `groups` are not independent in that modality: intervals, bootstrap and
    coverage count groups, not rows.
    """

    items: NDArray[np.int64]  # [rows, modalities]
    targets: NDArray[np.int64] | NDArray[np.float32]  # [rows] classes, or [rows, labels] of 0 and 1
    groups: NDArray[np.int64]  # [rows, modalities]
    columns: dict[str, NDArray[np.str_]] = field(default_factory=dict)  # [rows] each, to slice metrics by

    def __len__(self) -> int:
        return len(self.items)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Bool [rows, modalities]."""
        here: NDArray[np.bool_] = self.items != ABSENT
        return here

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Rows:
        return Rows(
            items=self.items[rows],
            targets=self.targets[rows],
            groups=self.groups[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
        )


class Pairing(Protocol):
    """How a split's items become rows."""

    def rows(self, seed: int) -> Rows:
        """The same rows for the same seed. Training asks with a new seed in every epoch."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FixedRows:
    """Rows as they were recorded together, whatever the seed."""

    fixed: Rows

    def rows(self, seed: int) -> Rows:
        del seed
        return self.fixed


@dataclass(frozen=True, slots=True, eq=False)
class PairedByClass:
    """Every item of `anchor` once, in order, each with random items of its class from the others.

    Given the class, modalities paired so are independent; those of real rows are not.
    """

    by_modality: dict[Modality, Labelled]
    anchor: Modality = "image"

    def rows(self, seed: int) -> Rows:
        """Raises AssertionError where a class of the anchor has no item in another modality."""
        rng = np.random.default_rng(seed)
        targets = self.by_modality[self.anchor].labels
        items = np.full((len(targets), len(MODALITIES)), ABSENT, np.int64)
        groups = np.full_like(items, ABSENT)
        columns: dict[str, NDArray[np.str_]] = {}
        for at, name in enumerate(MODALITIES):
            if (held := self.by_modality.get(name)) is None:
                continue
            drawn = (
                np.arange(len(targets)) if name == self.anchor else draw_of_class(held.labels, targets, rng)
            )
            items[:, at], groups[:, at] = drawn, held.groups[drawn]
            columns |= {column: values[drawn] for column, values in held.columns.items()}
        return Rows(items=items, targets=targets, groups=groups, columns=columns)


def draw_of_class(
    labels: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each wanted class a random item of it: int64 like `wanted`."""
    count = np.bincount(labels, minlength=int(wanted.max()) + 1)
    assert (count[np.unique(wanted)] > 0).all(), "a class without items cannot be paired"
    order, first = np.argsort(labels, kind="stable"), np.cumsum(count) - count
    drawn: NDArray[np.int64] = order[
        first[wanted] + (rng.random(len(wanted)) * count[wanted]).astype(np.int64)
    ]
    return drawn


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    items: Items
    pairing: Pairing


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Splits share no group. `provenance` goes into the manifest of what is trained on it."""

    train: Split
    validation: Split
    test: Split
    provenance: dict[str, Any]
