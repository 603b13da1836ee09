"""How much each modality of a row speaks for its answer: exact Shapley values over modalities, in nats.

The game is played by the row's present modalities. The value of a subset S is v(S) = log p(label | S), what
the model answers when only S is there; v(nothing) is the log of the label's prior. A modality's contribution
is its mean gain over all orders in which modalities can arrive (Shapley, A Value for n-Person Games, 1953;
for explaining models: Lundberg and Lee, NeurIPS 2017; with modalities as players: Hu et al., SHAPE, 2022).
A model that answers for every subset needs no stand-in for what is absent, and seven subsets no sampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import Manifest, Modality, subset_name, subsets

_LEAST: Final = float(np.finfo(np.float32).tiny)  # a probability that rounds to 0 has no logarithm


@dataclass(frozen=True, slots=True)
class SubsetAnswer:
    """What the model answers from some of the row's modalities."""

    label: str  # its own most probable one
    probability: float
    log_probability: float  # of the label that is explained, in nats


@dataclass(frozen=True, slots=True)
class Explanation:
    """`base` and the contributions add up to the log of the probability that `label` has in the answer."""

    label: str
    base: float  # log of the label's prior, in nats
    is_base_even: bool  # the manifest has no prior, and every label counts as likely as any other
    contributions: dict[Modality, float]  # in nats, of each modality that was used
    subsets: dict[str, SubsetAnswer]


def explain(
    probabilities: Mapping[str, NDArray[np.float32]],
    label: np.intp,
    used: tuple[Modality, ...],
    manifest: Manifest,
) -> Explanation:
    """Of one row: `probabilities` [labels] by the names of all non-empty subsets of `used`.

    Of a multilabel bundle p(label | S) is the probability that this one label holds.
    """
    values = {name: _log(said[label]) for name, said in probabilities.items()}
    base = _log(_prior(label, manifest))
    return Explanation(
        label=manifest.labels[label],
        base=base,
        is_base_even=manifest.calibration.prior is None,
        contributions=shapley(values, used, base=base),
        subsets={
            name: SubsetAnswer(
                label=manifest.labels[np.argmax(said)],
                probability=float(said.max()),
                log_probability=values[name],
            )
            for name, said in probabilities.items()
        },
    )


def shapley(
    values: Mapping[str, float], players: tuple[Modality, ...], *, base: float
) -> dict[Modality, float]:
    """phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! times (v(S with i) - v(S)).

    `values` by the names of the non-empty subsets, `base` is the value of nothing. Sums to
    v(players) - base.
    """
    return {player: _gain(player, values, players, base=base) for player in players}


def _gain(
    player: Modality, values: Mapping[str, float], players: tuple[Modality, ...], *, base: float
) -> float:
    count = len(players)
    others = tuple(other for other in players if other != player)
    total = 0.0
    for name in ("", *subsets(others)):
        before = tuple(other for other in others if other in name.split("+"))
        joined = subset_name(tuple(one for one in players if one in (*before, player)))
        weight = math.factorial(len(before)) * math.factorial(count - len(before) - 1) / math.factorial(count)
        total += weight * (values[joined] - (values[name] if name else base))
    return total


def _prior(label: np.intp, manifest: Manifest) -> float:
    """Without one, as even as the task allows."""
    prior = manifest.calibration.prior
    if prior is not None:
        return prior[label]
    return 0.5 if manifest.is_multilabel else 1 / len(manifest.labels)


def _log(probability: float | np.float32) -> float:
    return math.log(max(float(probability), _LEAST))
