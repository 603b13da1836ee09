"""Intervals by drawing whole groups of rows again.

Rows of one group (recordings of one clip) are not independent, so groups are drawn, with replacement, as many
as there are, each with all of its rows: the cluster bootstrap (Davison & Hinkley, Bootstrap Methods and their
Application, 1997, section 3.8). Its intervals are a little narrow for fewer than some twenty groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

DRAWS: Final = 1_000
SEED: Final = 0  # the same rows give the same interval
_CHUNK: Final = 64  # draws held at once: 5 MB for 10,000 groups
_TAIL: Final = 0.025  # on each side of a 95 % interval


@dataclass(frozen=True, slots=True)
class Measured:
    """`interval` is at 95 %; None where there is only one group, which says nothing of others."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """Which of `count` groups each row is in."""

    number: Numbers  # [rows], 0..count - 1
    count: int

    @classmethod
    def of(cls, groups: Numbers) -> Grouped:
        found, number = np.unique(groups, return_inverse=True)
        return cls(number=number.astype(np.int64), count=len(found))

    def sums(self, values: Floats) -> Floats:
        """Values [rows, columns] added up over each group: [groups, columns]."""
        order = np.argsort(self.number, kind="stable")
        first = np.searchsorted(self.number[order], np.arange(self.count))
        added: Floats = np.add.reduceat(values[order], first, axis=0)
        return added

    def draws(self, *, draws: int = DRAWS, seed: int = SEED) -> Iterator[Floats]:
        """How often each group was drawn: [some draws, groups] at a time, `draws` in all."""
        rng = np.random.default_rng(seed)
        for at in range(0, draws, _CHUNK):
            some = min(_CHUNK, draws - at)
            drawn = rng.integers(self.count, size=(some, self.count))
            drawn += self.count * np.arange(some)[:, None]
            counted = np.bincount(drawn.ravel(), minlength=some * self.count)
            yield counted.reshape(some, self.count).astype(np.float64)

    def drawn_totals(self, sums: Floats, *, draws: int = DRAWS, seed: int = SEED) -> Floats:
        """Column totals of sums [groups, columns] in every draw: [draws, columns]."""
        return np.concatenate([weights @ sums for weights in self.draws(draws=draws, seed=seed)])


def measure_share(happens: NDArray[np.bool_], grouped: Grouped, *, draws: int = DRAWS) -> Measured:
    """How often what is asked for happens among rows: bool [rows]."""
    sums = grouped.sums(np.stack([np.ones(len(happens)), happens], axis=1))
    drawn = grouped.drawn_totals(sums, draws=draws)
    return share_with_interval(float(happens.mean()), drawn[:, 1] / drawn[:, 0], grouped)


def measure_mean(values: Floats, grouped: Grouped, *, draws: int = DRAWS) -> Measured:
    """Of values [rows]."""
    sums = grouped.sums(np.stack([np.ones(len(values)), values], axis=1))
    drawn = grouped.drawn_totals(sums, draws=draws)
    return with_interval(float(values.mean()), drawn[:, 1] / drawn[:, 0], grouped)


def with_interval(value: float, drawn: Floats, grouped: Grouped) -> Measured:
    """The percentiles of what was drawn."""
    if grouped.count < 2:
        return Measured(value, None)
    low, high = np.quantile(drawn, (_TAIL, 1 - _TAIL))
    return Measured(value, (float(low), float(high)))


def share_with_interval(value: float, drawn: Floats, grouped: Grouped) -> Measured:
    """Where no group differs from another, percentiles would claim certainty: then Wilson's interval."""
    if grouped.count >= 2 and value in (0.0, 1.0):
        return Measured(value, wilson(value, grouped.count))
    return with_interval(value, drawn, grouped)


def error_with_interval(value: float, drawn: Floats, grouped: Grouped) -> Measured:
    """For an error that noise makes larger, in a draw more so: percentiles moved back onto the value."""
    moved = np.maximum(drawn - drawn.mean() + value, 0)
    return with_interval(value, moved, grouped)


def wilson(share: float, units: int) -> tuple[float, float]:
    """95 % interval of a share that was seen in `units` independent trials (Wilson 1927)."""
    z2 = 1.959964**2
    centre = (share + z2 / (2 * units)) / (1 + z2 / units)
    reach = math.sqrt(z2 * (share * (1 - share) / units + z2 / (4 * units**2))) / (1 + z2 / units)
    low, high = (0.0 if share == 0 else centre - reach), (1.0 if share == 1 else centre + reach)
    return low, high
