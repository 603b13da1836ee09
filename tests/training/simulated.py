"""Models whose answers are known to be calibrated, and rows drawn from what they say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


def softmax(logits: Floats) -> Floats:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = odds / odds.sum(axis=1, keepdims=True)
    return shares


def draw_targets(probabilities: Floats, rng: np.random.Generator) -> Numbers:
    """A class for each row, drawn from its probabilities."""
    return (probabilities.cumsum(axis=1) > rng.random((len(probabilities), 1))).argmax(axis=1)


def calibrated(
    rows: int, *, labels: int = 10, sharpness: float = 3.0, seed: int = 0
) -> tuple[Floats, Numbers]:
    """Logits and targets. Sharpness 1, 2, 4, 30: right in 32, 53, 75, 97 % of rows."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(rows, labels))
    return logits, draw_targets(softmax(logits), rng)
