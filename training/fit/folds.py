"""Predictions for training rows by towers that never saw them, which stacking is fitted on.

Wolpert, Stacked Generalization, 1992. A fold is a share of the groups of each modality: what a fold's towers
must not see is absent from their rows, so that rows whose modalities are in different folds still teach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import ABSENT, Pairing, Rows


@dataclass(frozen=True, slots=True, eq=False)
class WithoutFold:
    """The pairing's rows without the items of one fold; rows that keep nothing are left out."""

    pairing: Pairing
    fold: int
    folds: int

    def rows(self, seed: int) -> Rows:
        whole = self.pairing.rows(seed)
        hidden = in_fold(whole, self.fold, self.folds)
        items = np.where(hidden, ABSENT, whole.items)
        kept = Rows(items=items, targets=whole.targets, groups=whole.groups, columns=whole.columns)
        return kept.take(np.flatnonzero(kept.present.any(axis=1)))


def in_fold(rows: Rows, fold: int, folds: int) -> NDArray[np.bool_]:
    """Bool [rows, modalities].

    Of as many groups in a row as there are folds each is in another one, and in which is left to chance: in
    a table whose classes come in turn a fold must not be a class.
    """
    block, place = np.divmod(rows.groups, folds)
    chosen: NDArray[np.bool_] = rows.present & ((place + _mixed(block) % folds) % folds == fold)
    return chosen


def _mixed(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same number for the same one, and otherwise as if drawn: 0 to 2 ** 31 - 1.

    Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014: the end of SplitMix64.
    """
    x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x >> np.uint64(33)).astype(np.int64)
