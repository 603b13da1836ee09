"""How common each label is before anything is seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def class_prior(targets: NDArray[np.int64], *, labels: int, smoothing: float = 1.0) -> NDArray[np.float64]:
    """Shares of the classes among `targets` [rows], adding up to 1: float64 [labels].

    Every class is counted `smoothing` times more than it was seen (Laplace's rule of succession), so that a
    class without a row is rare, not impossible: its log prior stays finite.
    """
    assert smoothing > 0, "a class that was not seen would be impossible"
    counted = np.bincount(targets, minlength=labels) + smoothing
    prior: NDArray[np.float64] = counted / counted.sum()
    return prior


def label_prior(targets: NDArray[np.float32], *, smoothing: float = 1.0) -> NDArray[np.float64]:
    """For targets [rows, labels] of 0 and 1: the share of rows that have each label, each on its own."""
    assert smoothing > 0, "a label that was not seen would be impossible"
    prior: NDArray[np.float64] = (targets.sum(axis=0, dtype=np.float64) + smoothing) / (
        len(targets) + 2 * smoothing
    )
    return prior
