"""What a run will take, learned from what runs took.

Each part (an encoder at a length, the fusion) costs a fixed amount per launch and an amount per row; both
are fitted on line by least squares that forgets. Warm-up gives the first observations. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.runtime.predictor import PartRun

_MEMORY: Final = 0.98  # weight of the past at each observation: about the last fifty count
_BETWEEN: Final = "between"  # collating and handing over: what a batch takes beside its parts


@dataclass(slots=True)
class LinearCost:
    """seconds = fixed + per_row * rows, both at least zero."""

    fixed_s: float = 0.0
    per_row_s: float = 0.0
    _weight: float = 0.0
    _rows: float = 0.0
    _rows2: float = 0.0
    _seconds: float = 0.0
    _rows_seconds: float = 0.0

    def observe(self, rows: int, seconds: float) -> None:
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


@dataclass(slots=True)
class CostModel:
    """The costs of one model's parts. Lengths fall into buckets that double."""

    _parts: dict[tuple[str, int], LinearCost] = field(default_factory=dict)
    _mean_row_s: float = 0.0

    def observe(self, parts: Iterable[PartRun], *, rows: int, total_s: float) -> None:
        """Learn from one batch: its parts, and what is left of the total."""
        left_s = total_s
        for part in parts:
            self._part(part.part, part.length).observe(part.rows, part.seconds)
            left_s -= part.seconds
        self._part(_BETWEEN, 1).observe(rows, max(left_s, 0.0))
        mean_s = total_s / rows
        self._mean_row_s += (mean_s - self._mean_row_s) * (0.1 if self._mean_row_s else 1.0)

    def row_s(self, lengths: Mapping[str, int], *, fused: int = 1) -> float:
        """What one more row of these lengths, fused so many times, adds to a batch."""
        parts = {**lengths, _BETWEEN: 1}
        once_s = sum(self._nearest(part, length).per_row_s for part, length in parts.items() if length)
        return once_s + fused * self._nearest("fusion", 1).per_row_s

    @property
    def launch_s(self) -> float:
        """What a batch costs before its first row, if it needs every part once."""
        dearest: dict[str, float] = {}
        for (part, _), cost in self._parts.items():
            dearest[part] = max(dearest.get(part, 0.0), cost.fixed_s)
        return sum(dearest.values())

    @property
    def mean_row_s(self) -> float:
        """A row of which nothing is known yet, its share of launches included."""
        return self._mean_row_s

    def _part(self, part: str, length: int) -> LinearCost:
        return self._parts.setdefault((part, length.bit_length()), LinearCost())

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
