"""Split-conformal sets of labels: what the fusion graph's `prediction_set` is held to.

A label is in a row's set if its score is at most the threshold of the row's subset of modalities; the most
probable label is in it whatever its score, so that no set is empty. Scores, from probabilities p:

* LAC: 1 - p of the label. Sadinle et al., Least Ambiguous Set-Valued Classifiers, JASA 2019.
* APS: the sum of p over the labels that are more probable, and half of its own. Romano et al.,
  Classification with Valid and Adaptive Coverage, NeurIPS 2020, share its own out at random; half of it is
  the middle of that, and gives one row always one set.

Thresholds are fitted offline, and applied inside the graph. Here is only the check that the two agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import ConformalMethod


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one row's set, bool [labels] each: what it must hold, and what it may."""

    least: NDArray[np.bool_]
    most: NDArray[np.bool_]

    def admit(self, chosen: NDArray[np.bool_]) -> bool:
        return bool((self.least <= chosen).all() and (chosen <= self.most).all())


def set_bounds(
    probabilities: NDArray[np.float32], threshold: float, *, method: ConformalMethod, tolerance: float
) -> Bounds:
    """The set of one row, `probabilities` [labels], where what is off by `tolerance` may go either way.

    With a tolerance of 0 both bounds are the set itself, but for labels that are exactly as probable.
    """
    p = probabilities.astype(np.float64)
    if method == "lac":
        lowest = highest = 1 - p
    else:
        lowest = p / 2 + np.where(p[None, :] > p[:, None] + tolerance, p[None, :], 0).sum(axis=1)
        highest = np.where(p[None, :] >= p[:, None] - tolerance, p[None, :], 0).sum(axis=1) - p / 2
    runner_up = np.partition(p, -2)[-2]
    return Bounds(
        least=(highest <= threshold - tolerance) | (p > runner_up + tolerance),
        most=(lowest <= threshold + tolerance) | (p >= p.max() - tolerance),
    )
