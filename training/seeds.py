"""The same recipe from several seeds: what is the recipe's worth, and what was luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

# Student's t at 97.5 % for 1, 2 … 9 degrees of freedom; the last one, a little wide, for more.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """Mean, and the half width of its 95 % interval (Student's t over seeds); None of a single seed."""

    mean: float
    margin: float | None


def over_seeds(values: Sequence[float]) -> OverSeeds:
    mean, freedom = float(np.mean(values)), len(values) - 1
    if freedom == 0:
        return OverSeeds(mean, None)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return OverSeeds(mean, _T[min(freedom, len(_T)) - 1] * error)


def scores_over_seeds(metrics: Sequence[dict[str, Any]]) -> dict[str, dict[str, OverSeeds]]:
    """By subset of modalities and score, of the test rows; `metrics` are those of the seeds' checkpoints."""
    first = metrics[0]["test"]
    return {
        subset: {
            score: over_seeds([one["test"][subset][score]["value"] for one in metrics])
            for score in ("accuracy", "micro_f1", "macro_f1", "nll", "ece", "ece_debiased")
            if score in scored
        }
        for subset, scored in first.items()
    }
