"""Split-conformal sets of classes, with a threshold for each subset of modalities (Mondrian by subset).

A set holds the classes whose score is at most the threshold: of the scores that n validation rows give to
their true class, the ceil((n + 1) level)-th smallest. Where a new row is exchangeable with those, its set
holds its class with a probability of at least `level`, and of at most level + 1 / (n + 1) if no two scores
are equal; for each subset on its own, if what is missing does not depend on the class. The probability is
over validation sets too: for one of them the coverage is Beta(k, n + 1 - k), k that rank, so that with 500
rows it strays from 0.90 by 0.013 (one standard error). Vovk et al., Algorithmic Learning in a Random World,
2005; Vovk, Conditional validity of inductive conformal predictors, ACML 2012.

The guarantee is for rows. Rows of one group (recordings of one clip) are not independent: the mean coverage
stays as promised where groups are exchangeable and about as large, but it strays as if there were only as
many rows as groups. So groups are counted and stated, and errors of a coverage are counted over them.

Two scores, both as log odds, so that rows of which float32 says p = 1 still differ:

* LAC, log of (1 - p) / p: least ambiguous sets. Sadinle et al., JASA 2019. The smallest on average.
* APS, log of a / b: a the probability of all that is above the class and half of its own, b the rest.
  Romano et al., Classification with Valid and Adaptive Coverage, NeurIPS 2020, share the class's own
  probability out at random. Half of it is the middle of that, and a score like any other: fitted and
  applied without chance, so the guarantee is the same, and one row always gets one set.

Measured at level 0.90, means of 40 draws of 1,000 validation rows, 10 classes, a calibrated model that is
right in 75 % / 97 % of rows: coverage and mean size are 0.90, 1.7 / 0.90, 0.9 with half; with all of it
0.90, 3.2 / 0.90, 3.1; fitted at random but applied with none of it, which also gives a row always the same
set, 0.96, 2.2 / 1.00, 1.1. A model that is right more often than `level` must have empty sets to be held to
it, LAC for the rows it is least sure of, APS for the surest: so LAC is the default, and the answer that a
person sees holds the most probable class too (`with_top`), and covers more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["lac", "aps"]

FLOOR: Final = 80.0  # nats below the most probable class, where all are equal: exp(-80) is a normal float32
HALF: Final = 0.5
_ROUNDING: Final = 1e-5  # of a score in float32: adding it lets the row that set the threshold in
_CELLS: Final = 4_000_000  # compared at once: 32 MB


class TooFewRows(ValueError):
    """Fewer validation rows than the level needs. Ask for a lower level, or bring more rows."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownRows:
    """What a model says about rows whose class is known, from one subset of modalities."""

    logits: NDArray[np.floating]  # [rows, labels], or log probabilities: a row's constant cancels
    targets: NDArray[np.int64]  # [rows]
    groups: NDArray[np.int64]  # [rows], what is independent; or [rows, modalities], in each of them


@dataclass(frozen=True, slots=True)
class Conformal:
    """Thresholds of the scores below, by subset; `rows` and `groups` count what they were fitted on."""

    level: float
    lac: dict[str, float]
    aps: dict[str, float]
    rows: dict[str, int]
    groups: dict[str, int]

    def thresholds(self, method: Method) -> dict[str, float]:
        return self.lac if method == "lac" else self.aps

    def shares(self, method: Method) -> dict[str, float]:
        """The thresholds as people know them: the largest 1 - p (LAC), the largest a (APS), in 0..1."""
        return {subset: _share(threshold) for subset, threshold in self.thresholds(method).items()}


@dataclass(frozen=True, slots=True)
class Coverage:
    """`standard_error` of the share comes from how much groups differ, whatever their sizes."""

    share: float
    standard_error: float
    mean_size: float
    empty_share: float
    rows: int
    groups: int

    def deviation(self, level: float, *, fitted_on: int) -> float:
        """Standard errors between share and level. `fitted_on` counts the groups behind the threshold.

        Both sides stray: this share, and the coverage that the threshold has for endlessly many rows.
        """
        strays = math.hypot(self.standard_error, math.sqrt(level * (1 - level) / fitted_on))
        return (self.share - level) / strays


def fit_conformal(known: Mapping[str, KnownRows], *, level: float = 0.90) -> Conformal:
    """Thresholds for each subset, from validation rows that nothing else was fitted on where that can be had.

    Raises TooFewRows where a subset has fewer than level / (1 - level).
    """
    lac = {name: true_scores(lac_scores(rows.logits), rows) for name, rows in known.items()}
    aps = {name: true_scores(aps_scores(rows.logits), rows) for name, rows in known.items()}
    return Conformal(
        level=level,
        lac={name: _threshold(scores, level, least_rounding=_ROUNDING) for name, scores in lac.items()},
        aps={name: _threshold(scores, level, least_rounding=0) for name, scores in aps.items()},
        rows={name: len(rows.targets) for name, rows in known.items()},
        groups={name: fewest_groups(rows.groups) for name, rows in known.items()},
    )


# --- scores and sets --------------------------------------------------------------------------


def lac_scores(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """log((1 - p) / p) of every class: float64 [rows, labels]."""
    below_top = _below_top(logits)
    odds, is_top = np.exp(below_top), below_top == 0
    rest = np.where(is_top, 0, odds).sum(axis=1, keepdims=True)
    tops = is_top.sum(axis=1, keepdims=True)
    others = rest + (tops - is_top) - np.where(is_top, 0, odds)  # never 1 minus nearly 1
    scores: NDArray[np.float64] = np.log(others) - below_top
    return scores


def aps_scores(
    logits: NDArray[np.floating], *, own: float | NDArray[np.float64] = HALF
) -> NDArray[np.float64]:
    """log(a / b) of every class: float64 [rows, labels].

    `own` is the share of a class's own probability that counts as above it: one number, or [rows] drawn
    from 0..1 for the randomised score. Equally probable classes share one score.
    """
    rows, labels = logits.shape
    shares = np.broadcast_to(np.asarray(own, np.float64), (rows,))
    step = max(1, _CELLS // labels**2)
    parts = [
        _aps_scores(_below_top(logits[at : at + step]), shares[at : at + step, None])
        for at in range(0, rows, step)
    ]
    return np.concatenate(parts)


def lac_sets(logits: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Bool [rows, labels]."""
    chosen: NDArray[np.bool_] = lac_scores(logits) <= threshold
    return chosen


def aps_sets(logits: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Bool [rows, labels]."""
    chosen: NDArray[np.bool_] = aps_scores(logits) <= threshold
    return chosen


def with_top(sets: NDArray[np.bool_], logits: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The sets as a person sees them: the most probable class is in, so none is empty."""
    chosen: NDArray[np.bool_] = sets | (logits == logits.max(axis=1, keepdims=True))
    return chosen


def true_scores(scores: NDArray[np.float64], known: KnownRows) -> NDArray[np.float64]:
    """Of each row's own class: float64 [rows]."""
    of_targets: NDArray[np.float64] = scores[np.arange(len(known.targets)), known.targets]
    return of_targets


# --- coverage ---------------------------------------------------------------------------------


def coverage(sets: NDArray[np.bool_], targets: NDArray[np.int64], groups: NDArray[np.int64]) -> Coverage:
    """How often sets [rows, labels] hold their row's class. Needs two groups at least.

    Of groups [rows, modalities] the error is the largest that any modality's groups give: where pairing
    crosses them, a recording that is in many rows counts whatever pictures are beside it.
    """
    covered = sets[np.arange(len(targets)), targets].astype(np.float64)
    share, sizes = float(covered.mean()), sets.sum(axis=1)
    errors = [_error(covered - share, column) for column in groups.reshape(len(targets), -1).T]
    standard_error, count = max(errors)
    return Coverage(
        share=share,
        standard_error=standard_error,
        mean_size=float(sizes.mean()),
        empty_share=float((sizes == 0).mean()),
        rows=len(targets),
        groups=count,
    )


def fewest_groups(groups: NDArray[np.int64]) -> int:
    """How many there are, in the modality that has fewest."""
    return min(len(np.unique(column)) for column in groups.reshape(len(groups), -1).T)


def _error(apart: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[float, int]:
    """Standard error of the mean of rows that are off it by `apart`, and over how many groups."""
    _, number = np.unique(groups, return_inverse=True)
    sums = np.bincount(number, weights=apart)  # of each group, its rows together
    count = len(sums)
    assert count > 1, "one group does not tell how much groups differ"
    return math.sqrt(count / (count - 1) * float(sums @ sums)) / len(apart), count


def _threshold(scores: NDArray[np.float64], level: float, *, least_rounding: float) -> float:
    """APS has no least rounding: the sure rows that crowd just below 0 keep their order."""
    assert 0 < level < 1, "a level is a share"
    rows = len(scores)
    rank = math.ceil((rows + 1) * level - 1e-9)  # 0.9 * 10 may be a little more than 9
    if rank > rows:
        least = math.ceil(level / (1 - level) - 1e-9)
        raise TooFewRows(f"{rows} validation rows; sets at level {level:g} need {least} or more.")
    found = float(np.partition(scores, rank - 1)[rank - 1])
    return float(np.float32(found + max(least_rounding, _ROUNDING * abs(found))))


def _below_top(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log of each probability over the largest of its row, in -FLOOR..0."""
    wide = logits.astype(np.float64)
    below_top: NDArray[np.float64] = np.maximum(wide - wide.max(axis=1, keepdims=True), -FLOOR)
    return below_top


def _aps_scores(below_top: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
    odds, one, other = np.exp(below_top)[:, None, :], below_top[:, :, None], below_top[:, None, :]
    above, tied, below = (
        np.where(chosen, odds, 0).sum(axis=2) for chosen in (other > one, other == one, other < one)
    )
    a, b = above + own * tied, below + (1 - own) * tied
    apart = above - below + (2 * own - 1) * tied  # a - b, exact where a and b are nearly equal
    with np.errstate(divide="ignore"):  # of a randomised score, at the ends of 0..1
        near = np.log1p(np.where(np.abs(apart) < b / 2, apart / b, 0))
        return np.where(np.abs(apart) < b / 2, near, np.log(a) - np.log(b))


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
