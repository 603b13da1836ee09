"""How good probabilities [rows, labels] are where any number of labels may hold, each with an interval.

* micro_f1, macro_f1: over all decisions together; the mean of each label's own. A label is said at 0.5.
* mean_average_precision: of each label's ranking of the rows, the mean over the labels that some row has.
* nll, brier: mean over rows and labels of -log of what was said of the truth, and of the squared distance.
* ece: expected calibration error of each decision's probability, 15 bins of equal width, labels together.
* ece_debiased, ece_noise: what is left of it without noise, and what noise alone would show, see noise.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.measure.bootstrap import (
    DRAWS,
    Floats,
    Grouped,
    Measured,
    Numbers,
    error_with_interval,
    share_with_interval,
    with_interval,
)
from training.measure.noise import unnoised
from training.measure.scores import BINS, LEAST_PROBABILITY, Reliability, bin_of, mean_f1, reliability

_SAID: Final = 0.5


@dataclass(frozen=True, slots=True)
class MultilabelScore:
    """Of one subset of modalities, or of one slice of rows."""

    rows: int
    groups: int
    micro_f1: Measured
    macro_f1: Measured
    mean_average_precision: Measured
    nll: Measured
    brier: Measured
    ece: Measured
    ece_debiased: Measured
    ece_noise: Measured


def score_labels(
    probabilities: Floats,
    targets: Floats,
    groups: Numbers,
    *,
    draws: int = DRAWS,
) -> MultilabelScore:
    """Targets [rows, labels] are 0 or 1; groups [rows] number what is independent.

    Rankings have no sums over groups: a thousand draws take about 0.2 s for each label of 10,000 rows.
    """
    grouped = Grouped.of(groups)
    sums = grouped.sums(_columns(probabilities, targets))
    now, drawn = _figures(sums.sum(axis=0, keepdims=True)), _figures(grouped.drawn_totals(sums, draws=draws))
    rankings = [_Ranking.of(said, truth) for said, truth in zip(probabilities.T, targets.T, strict=True)]
    precisions = [
        _mean_average_precisions(rankings, weights.astype(np.float32), of=grouped.number)
        for weights in grouped.draws(draws=draws)
    ]
    [precision] = _mean_average_precisions(rankings, np.ones((1, len(targets))), of=np.arange(len(targets)))

    without = unnoised(probabilities, targets > 0, bin_of(probabilities), grouped)

    def measured(name: str) -> Measured:
        interval_of = share_with_interval if name.endswith("f1") else with_interval
        return interval_of(float(now[name][0]), drawn[name], grouped)

    return MultilabelScore(
        rows=len(targets),
        groups=grouped.count,
        micro_f1=measured("micro_f1"),
        macro_f1=measured("macro_f1"),
        mean_average_precision=with_interval(float(precision), np.concatenate(precisions), grouped),
        nll=measured("nll"),
        brier=measured("brier"),
        ece=error_with_interval(float(now["ece"][0]), drawn["ece"], grouped),
        ece_debiased=without.debiased,
        ece_noise=without.noise,
    )


def row_nll_of_labels(probabilities: Floats, targets: Floats) -> Floats:
    """-log of what was said of the truth, the mean over a row's labels: [rows], nats."""
    likelihood = np.where(targets > 0, probabilities, 1 - probabilities)
    nats: Floats = -np.log(np.maximum(likelihood, LEAST_PROBABILITY)).mean(axis=1)
    return nats


def label_reliability(probabilities: Floats, targets: Floats) -> Reliability:
    """Every label of every row is one decision."""
    return reliability(probabilities.ravel(), targets.ravel() > 0)


def _columns(probabilities: Floats, targets: Floats) -> Floats:
    """What each row adds to the totals: [rows, 3 + 3 * labels + BINS]."""
    rows, labels = probabilities.shape
    said = (probabilities >= _SAID).astype(np.float64)
    places = np.repeat(np.arange(rows), labels) * BINS + bin_of(probabilities).ravel()
    gaps = np.bincount(places, weights=(targets - probabilities).ravel(), minlength=rows * BINS)
    alone = (
        np.ones(rows),
        row_nll_of_labels(probabilities, targets),
        ((probabilities - targets) ** 2).mean(axis=1),
    )
    return np.concatenate(
        [np.stack(alone, axis=1), targets * said, targets, said, gaps.reshape(rows, BINS) / labels], axis=1
    )


def _figures(totals: Floats) -> dict[str, Floats]:
    """Figures [draws] of totals [draws, columns]."""
    rows, nll, brier = totals[:, :3].T
    hits, truly, said = np.split(totals[:, 3:-BINS], 3, axis=1)
    micro = mean_f1(*(counts.sum(axis=1, keepdims=True) for counts in (hits, truly, said)))
    return {
        "micro_f1": micro,
        "macro_f1": mean_f1(hits, truly, said),
        "nll": nll / rows,
        "brier": brier / rows,
        "ece": np.abs(totals[:, -BINS:]).sum(axis=1) / rows,
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """The rows from the most to the least probable, for one label."""

    order: Numbers  # [rows]
    last: Numbers  # [rows], the last row that is as probable: those come together
    positives: Numbers  # places in that order of the rows that have the label

    @classmethod
    def of(cls, said: Floats, truth: Floats) -> _Ranking:
        order = np.argsort(-said, kind="stable")
        falling = -said[order]
        last = np.searchsorted(falling, falling, side="right") - 1
        return cls(order=order, last=last, positives=np.flatnonzero(truth[order]))

    def average_precisions(self, weights: NDArray[Any], *, of: Numbers) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mean precision at the positives, and how many there are: [draws] each."""
        counted = weights[:, of[self.order]].cumsum(axis=1)
        hits = weights[:, of[self.order[self.positives]]]
        found = np.concatenate([np.zeros((len(hits), 1), hits.dtype), hits.cumsum(axis=1)], axis=1)
        last = self.last[self.positives]
        upto = np.searchsorted(self.positives, last, side="right")
        precision = found[:, upto] / np.maximum(counted[:, last], 1)
        return np.einsum("dr,dr->d", hits, precision) / np.maximum(found[:, -1], 1), found[:, -1]


def _mean_average_precisions(
    rankings: Sequence[_Ranking], weights: NDArray[Any], *, of: Numbers
) -> NDArray[Any]:
    """Where the groups `of` the rows count `weights` [draws, groups] times: [draws]."""
    found, held = np.zeros(len(weights)), np.zeros(len(weights))
    for ranking in rankings:
        precision, positives = ranking.average_precisions(weights, of=of)
        found += precision
        held += positives > 0
    mean: Floats = found / np.maximum(held, 1)
    return mean
