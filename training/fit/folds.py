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
    """Bool [rows, modalities]."""
    chosen: NDArray[np.bool_] = rows.present & (rows.groups % folds == fold)
    return chosen
