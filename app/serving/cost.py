"""What a run will take, learned from what runs took.

Each part (an encoder at a length, the fusion) costs a fixed amount per launch and an amount per row; both
are fitted on line by least squares that forgets. Warm-up gives the first observations. A run that took many
times what was expected counts as a few times that: a machine that stood still once says nothing of the next
run, and one that became slower says so again. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.runtime.predictor import PartRun

_MEMORY: Final = 0.98  # weight of the past at each observation: about the last fifty count
_TRUSTED: Final = 4  # observations, after which an estimate bounds what the next one may say:
_MOST: Final = 4.0  # times the estimate,
_LEAST_S: Final = 0.001  # or this, so that an estimate of nothing can grow
_BETWEEN: Final = "between"  # collating and handing over: what a batch takes beside its parts


@dataclass(slots=True)
class LinearCost:
    """seconds = fixed + per_row * rows, both at least zero."""

    fixed_s: float = 0.0
    per_row_s: float = 0.0
    last_run: int = 0  # by the model's count
    _weight: float = 0.0
    _rows: float = 0.0
    _rows2: float = 0.0
    _seconds: float = 0.0
    _rows_seconds: float = 0.0

    def observe(self, rows: int, seconds: float) -> float:
        """Learn from one run: the seconds that it counted for."""
        if self._weight > _TRUSTED:
            seconds = _believable(seconds, expected_s=self.fixed_s + self.per_row_s * rows)
        self._weight = _MEMORY * self._weight + 1
        self._rows = _MEMORY * self._rows + rows
        self._rows2 = _MEMORY * self._rows2 + rows * rows
        self._seconds = _MEMORY * self._seconds + seconds
        self._rows_seconds = _MEMORY * self._rows_seconds + rows * seconds
        mean_rows, mean_s = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows2 / self._weight - mean_rows**2
        if variance > 1e-6 * mean_rows**2:
            covariance = self._rows_seconds / self._weight - mean_rows * mean_s
            slope = covariance / variance
        else:  # always the same number of rows: the intercept is kept, the slope explains the rest
            slope = (mean_s - self.fixed_s) / mean_rows
        self.per_row_s = min(max(slope, 0.0), mean_s / mean_rows)
        self.fixed_s = mean_s - self.per_row_s * mean_rows
        return seconds


@dataclass(slots=True)
class CostModel:
    """The costs of one model's parts. Lengths fall into buckets that double."""

    _parts: dict[tuple[str, int], LinearCost] = field(default_factory=dict)
    _mean_row_s: float | None = None
    _runs: int = 0

    def observe(self, parts: Iterable[PartRun], *, rows: int, total_s: float) -> None:
        """Learn from one batch: its parts, and what is left of the total."""
        self._runs += 1
        launches: dict[str, float] = {}
        counted_s, left_s = 0.0, total_s
        for part in parts:
            cost = self._part(part.part, part.length)
            counted_s += cost.observe(part.rows, part.seconds)
            launches[part.part] = max(launches.get(part.part, 0.0), cost.fixed_s)
            left_s -= part.seconds
        between = self._part(_BETWEEN, 1)
        counted_s += between.observe(rows, max(left_s, 0.0))
        launch_s = between.fixed_s + sum(launches.values())
        self._learn_mean(max(counted_s - launch_s, 0.0) / rows)

    def _learn_mean(self, row_s: float) -> None:
        if self._mean_row_s is None:
            self._mean_row_s = row_s
        else:
            self._mean_row_s += 0.1 * (_believable(row_s, expected_s=self._mean_row_s) - self._mean_row_s)

    def row_s(self, lengths: Mapping[str, int], *, fused: int = 1) -> float:
        """What one more row of these lengths, fused so many times, adds to a batch."""
        parts = {**lengths, _BETWEEN: 1}
        once_s = sum(self._nearest(part, length).per_row_s for part, length in parts.items() if length)
        return once_s + fused * self._nearest("fusion", 1).per_row_s

    @property
    def launch_s(self) -> float:
        """What a batch costs before its first row, if it needs every part once.

        A length that is rare fades from it: what it costs is said by the rows that have it.
        """
        dearest: dict[str, float] = {}
        for (part, _), cost in self._parts.items():
            recent_s = cost.fixed_s * _MEMORY ** (self._runs - cost.last_run)
            dearest[part] = max(dearest.get(part, 0.0), recent_s)
        return sum(dearest.values())

    @property
    def mean_row_s(self) -> float:
        """A row of which nothing is known yet, without its share of launches."""
        return self._mean_row_s or 0.0

    @property
    def lone_row_s(self) -> float:
        """Such a row in a run of its own."""
        return self.launch_s + self.mean_row_s

    def _part(self, part: str, length: int) -> LinearCost:
        """The bucket of this length, which is in use now."""
        cost = self._parts.setdefault((part, length.bit_length()), LinearCost())
        cost.last_run = self._runs
        return cost

    def _nearest(self, part: str, length: int) -> LinearCost:
        """The bucket of this length, or the known one that is nearest to it."""
        bucket = length.bit_length()
        found = self._parts.get((part, bucket))
        if found is not None:
            return found
        known = [at for name, at in self._parts if name == part]
        if not known:
            return LinearCost()
        at = min(known, key=lambda other: abs(other - bucket))
        return self._parts[part, at]


def _believable(seconds: float, *, expected_s: float) -> float:
    return min(seconds, max(_MOST * expected_s, _LEAST_S))
