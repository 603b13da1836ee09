"""Which of two models is better on the same rows, and whether the rows can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.measure.bootstrap import DRAWS, Floats, Grouped, Measured, Numbers, with_interval
from training.measure.scores import is_right, row_nll


@dataclass(frozen=True, slots=True)
class Difference:
    """Challenger less champion. `worse_share`: of the draws in which the challenger is not better."""

    measured: Measured
    worse_share: float


@dataclass(frozen=True, slots=True)
class Paired:
    rows: int
    groups: int
    nll: Difference  # nats; below 0 the challenger is better
    accuracy: Difference  # above 0 the challenger is better

    @property
    def challenger_wins(self) -> bool:
        """Its negative log likelihood is lower, and so is the whole 95 % interval of the difference."""
        interval = self.nll.measured.interval
        return interval is not None and interval[1] < 0


def compare(
    challenger: Floats, champion: Floats, targets: Numbers, groups: Numbers, *, draws: int = DRAWS
) -> Paired:
    """Probabilities [rows, labels] of both. Groups are drawn for the two together."""
    return compare_rows(
        nll=(row_nll(challenger, targets), row_nll(champion, targets)),
        right=(
            is_right(challenger, targets).astype(np.float64),
            is_right(champion, targets).astype(np.float64),
        ),
        groups=groups,
        draws=draws,
    )


def compare_rows(
    *, nll: tuple[Floats, Floats], right: tuple[Floats, Floats], groups: Numbers, draws: int = DRAWS
) -> Paired:
    """From figures of each row, [rows], challenger's and champion's: for tasks with another likelihood."""
    grouped = Grouped.of(groups)
    rows = len(groups)
    apart = np.stack([np.ones(rows), nll[0] - nll[1], right[0] - right[1]], axis=1)
    sums = grouped.sums(apart)
    drawn = grouped.drawn_totals(sums, draws=draws)
    return Paired(
        rows=rows,
        groups=grouped.count,
        nll=_difference(float(apart[:, 1].mean()), drawn[:, 1] / drawn[:, 0], grouped, better=-1),
        accuracy=_difference(float(apart[:, 2].mean()), drawn[:, 2] / drawn[:, 0], grouped, better=1),
    )


def _difference(value: float, drawn: Floats, grouped: Grouped, *, better: int) -> Difference:
    return Difference(with_interval(value, drawn, grouped), float((better * drawn <= 0).mean()))
