"""Temperatures, one for each subset of modalities, fitted on validation rows.

Temperature scaling: Guo et al., On Calibration of Modern Neural Networks, ICML 2017. One number for all
subsets would leave those with few modalities far too sure of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

_LOWEST: Final = 0.05
_HIGHEST: Final = 20.0
_TELLING: Final = 10  # groups with errors, from which on they tell how much groups differ
_STEPS: Final = 40  # each narrows the interval to 0.618 of it: 6 to 3e-8


def fit_temperature(logits: Tensor, labels: Tensor, *, units: int) -> float:
    """The divisor with the least negative log likelihood, by golden-section search over its logarithm.

    Where every validation row is right the likelihood has no end: surer is always better. So the true
    class is given not all of the probability: what it is denied is `_doubt`.
    """
    doubt = _doubt(float((logits.argmax(dim=1) != labels).float().mean()), units=units)
    classes = logits.shape[1]
    smoothing = doubt * classes / (classes - 1)  # torch spreads it over all classes, the true one too

    def loss(temperature: float) -> float:
        scaled = logits.double() / temperature
        return nn.functional.cross_entropy(scaled, labels, label_smoothing=smoothing).item()

    return _least(loss)


def fit_label_temperature(logits: Tensor, targets: Tensor, *, units: int) -> float:
    """The same for labels that do not exclude each other: targets [rows, labels] of 0 and 1.

    One divisor for all sigmoids, with the same doubt of each label.
    """
    doubt = _doubt(float(((logits > 0) != (targets > 0)).float().mean()), units=units)
    believed = targets.double() * (1 - 2 * doubt) + doubt

    def loss(temperature: float) -> float:
        scaled = logits.double() / temperature
        return nn.functional.binary_cross_entropy_with_logits(scaled, believed).item()

    return _least(loss)


def _doubt(error: float, *, units: int) -> float:
    """By how much the true share of errors is expected to exceed the one seen in so many independent rows.

    (errors + 1) / (units + 2) by Laplace's rule of succession, less errors / units: without an error
    1 / (units + 2), as Platt has it (Probabilistic Outputs for Support Vector Machines, 1999); where half of
    all is wrong nothing, because there the errors themselves say how far to trust.
    """
    return max(0.0, 1 - 2 * error) / (units + 2)


def independent_rows(is_wrong: NDArray[np.bool_], groups: NDArray[np.int64]) -> int:
    """How many independent rows say as much about errors as these, of `groups`: from groups to rows.

    Rows over the design effect (Kish, Survey Sampling, 1965): the variance of the error between groups over
    what it would be between independent rows. Languages differ much in how well they are read, and little
    where an image and a recording are there too. Errors in few groups tell nothing of that; then groups are
    counted.
    """
    _, group = np.unique(groups, return_inverse=True)
    count, error = int(group.max()) + 1, float(is_wrong.mean())
    failed = np.count_nonzero(np.bincount(group, weights=is_wrong))
    if failed < _TELLING:
        return count
    apart = np.bincount(group, weights=is_wrong - error)
    variance = count / (count - 1) * float(apart @ apart) / len(group) ** 2
    if variance == 0:
        return count
    return int(np.clip(error * (1 - error) / variance, count, len(group)))


def _least(loss: Callable[[float], float]) -> float:
    """Where in the range of temperatures a loss with one valley is least."""
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(math.exp(left)) < loss(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)
