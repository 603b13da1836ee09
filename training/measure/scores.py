"""How good probabilities [rows, labels] are where one class is right, each figure with an interval.

* nll: mean of -log p of the right class, in nats.
* brier: mean over rows of the squared distance between p and the right answer, 0..2 (Brier 1950).
* ece: expected calibration error of the top probability, 15 bins of equal width (Guo et al., ICML 2017).
* ece_debiased, ece_noise: what is left of it without noise, and what noise alone would show, see noise.py.
* aurc: area under the risk-coverage curve, the mean error when only the surest are answered, over all
  shares of them (Geifman & El-Yaniv, NeurIPS 2017); 0 is best, the error of a random order is the worst kept.
"""

from __future__ import annotations

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

BINS: Final = 15
LEAST_PROBABILITY: Final = 1e-12  # what costs 27.6 nats: the worst that one row can do
_CURVE_POINTS: Final = 101


@dataclass(frozen=True, slots=True)
class Score:
    """Of one subset of modalities, or of one slice of rows."""

    rows: int
    groups: int
    accuracy: Measured
    macro_f1: Measured
    nll: Measured
    brier: Measured
    ece: Measured
    ece_debiased: Measured
    ece_noise: Measured
    aurc: Measured


@dataclass(frozen=True, slots=True)
class Reliability:
    """What was said against what was seen, in bins of equal width; 0 where a bin is empty."""

    rows: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Share of wrong answers among the surest `coverage` of the rows."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]


def score(probabilities: Floats, targets: Numbers, groups: Numbers, *, draws: int = DRAWS) -> Score:
    """Targets [rows] are classes; groups [rows] number what is independent."""
    grouped = Grouped.of(groups)
    sums = grouped.sums(_columns(probabilities, targets))
    now, drawn = _figures(sums.sum(axis=0, keepdims=True)), _figures(grouped.drawn_totals(sums, draws=draws))
    confidence, wrong = probabilities.max(axis=1), ~is_right(probabilities, targets)
    without = unnoised(confidence, ~wrong, bin_of(confidence), grouped)
    curve = _RiskOrder.of(confidence, wrong)
    drawn_areas = [curve.areas(weights, of=grouped.number) for weights in grouped.draws(draws=draws)]

    def value(name: str) -> float:
        return float(now[name][0])

    return Score(
        rows=len(targets),
        groups=grouped.count,
        accuracy=share_with_interval(value("accuracy"), drawn["accuracy"], grouped),
        macro_f1=share_with_interval(value("macro_f1"), drawn["macro_f1"], grouped),
        nll=with_interval(value("nll"), drawn["nll"], grouped),
        brier=with_interval(value("brier"), drawn["brier"], grouped),
        ece=error_with_interval(value("ece"), drawn["ece"], grouped),
        ece_debiased=without.debiased,
        ece_noise=without.noise,
        aurc=with_interval(curve.area(), np.concatenate(drawn_areas), grouped),
    )


def is_right(probabilities: Floats, targets: Numbers) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = probabilities.argmax(axis=1) == targets
    return right


def row_nll(probabilities: Floats, targets: Numbers) -> Floats:
    """-log p of the right class: [rows], nats."""
    likelihood = probabilities[np.arange(len(targets)), targets]
    nats: Floats = -np.log(np.maximum(likelihood, LEAST_PROBABILITY))
    return nats


def confusion(probabilities: Floats, targets: Numbers) -> Numbers:
    """Rows counted by their class (first axis) and by what was said (second): [labels, labels]."""
    labels = probabilities.shape[1]
    pairs = targets * labels + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=labels**2).reshape(labels, labels)


def reliability(confidence: Floats, right: NDArray[np.bool_]) -> Reliability:
    """For one confidence and one outcome a row."""
    bins = bin_of(confidence)
    rows = np.bincount(bins, minlength=BINS)
    filled = np.maximum(rows, 1)
    return Reliability(
        rows=tuple(rows.tolist()),
        confidence=tuple((np.bincount(bins, weights=confidence, minlength=BINS) / filled).tolist()),
        accuracy=tuple((np.bincount(bins, weights=right, minlength=BINS) / filled).tolist()),
    )


def risk_coverage(confidence: Floats, wrong: NDArray[np.bool_]) -> RiskCoverage:
    """At about a hundred shares; rows that are as sure are answered together."""
    risk = _RiskOrder.of(confidence, wrong).risks()
    rows = len(risk)
    at = np.unique(np.linspace(0, rows - 1, min(rows, _CURVE_POINTS)).round().astype(np.int64))
    return RiskCoverage(coverage=tuple(((at + 1) / rows).tolist()), risk=tuple(risk[at].tolist()))


def bin_of(shares: Floats) -> Numbers:
    return np.minimum((shares * BINS).astype(np.int64), BINS - 1)


# --- sums over rows ---------------------------------------------------------------------------


def _columns(probabilities: Floats, targets: Numbers) -> Floats:
    """What each row adds to the totals: [rows, 4 + 3 * labels + BINS]."""
    rows, labels = probabilities.shape
    said, right = probabilities.argmax(axis=1), is_right(probabilities, targets)
    truth = np.eye(labels)[targets]
    confidence = probabilities.max(axis=1)
    gaps = np.zeros((rows, BINS))
    gaps[np.arange(rows), bin_of(confidence)] = right - confidence
    alone = (
        np.ones(rows),
        right,
        row_nll(probabilities, targets),
        ((probabilities - truth) ** 2).sum(axis=1),
    )
    answered = np.eye(labels)[said]
    return np.concatenate([np.stack(alone, axis=1), truth * answered, truth, answered, gaps], axis=1)


def _figures(totals: Floats) -> dict[str, Floats]:
    """Figures [draws] of totals [draws, columns]."""
    rows, right, nll, brier = totals[:, :4].T
    hits, truly, said = np.split(totals[:, 4:-BINS], 3, axis=1)
    return {
        "accuracy": right / rows,
        "macro_f1": mean_f1(hits, truly, said),
        "nll": nll / rows,
        "brier": brier / rows,
        "ece": np.abs(totals[:, -BINS:]).sum(axis=1) / rows,
    }


def mean_f1(hits: Floats, truly: Floats, said: Floats) -> Floats:
    """Counts [draws, labels] to the mean F1 of the labels that occur, as truth or as answer: [draws]."""
    occurs = truly + said > 0
    f1 = np.where(occurs, 2 * hits / np.where(occurs, truly + said, 1), 0)
    mean: Floats = f1.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1)
    return mean


@dataclass(frozen=True, slots=True, eq=False)
class _RiskOrder:
    """Rows from sure to unsure."""

    order: Numbers  # [rows]
    wrong: Floats  # [rows], in that order
    last: Numbers | None  # [rows], the last row that is as sure; None where no two are

    @classmethod
    def of(cls, confidence: Floats, wrong: NDArray[np.bool_]) -> _RiskOrder:
        order = np.argsort(-confidence, kind="stable")
        falling = -confidence[order]
        last = np.searchsorted(falling, falling, side="right") - 1
        has_ties = bool((last != np.arange(len(last))).any())
        return cls(order=order, wrong=wrong[order].astype(np.float64), last=last if has_ties else None)

    def areas(self, weights: Floats, *, of: Numbers) -> Floats:
        """Area under the curve where the groups `of` the rows count `weights` [draws, groups] times: [draws].

        In float32, which counts to 16 million without an error and is twice as fast.
        """
        counted = weights.astype(np.float32)[:, of[self.order]]
        area: Floats = np.einsum("dr,dr->d", counted, self._risks(counted)) / counted.sum(axis=1)
        return area

    def area(self) -> float:
        return float(self.risks().mean())

    def risks(self) -> Floats:
        """When each row is the last that is answered: [rows]."""
        risks: Floats = self._risks(np.ones((1, len(self.order))))[0]
        return risks

    def _risks(self, counted: NDArray[Any]) -> NDArray[Any]:
        answered = np.maximum(counted.cumsum(axis=1), 1)  # counts: below 1 is 0 of 0
        risks: NDArray[Any] = (counted * self.wrong.astype(counted.dtype)).cumsum(axis=1)
        risks /= answered
        return risks if self.last is None else risks[:, self.last]
