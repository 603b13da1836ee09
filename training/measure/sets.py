"""What conformal sets hold on rows that they were not fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.calibrate.conformal import (
    Conformal,
    Coverage,
    KnownRows,
    Method,
    aps_sets,
    coverage,
    lac_sets,
    with_top,
)


@dataclass(frozen=True, slots=True)
class SetsResult:
    """Of one subset. `deviation`: standard errors between the coverage of `held` and the level."""

    threshold: float  # the largest 1 - p for LAC, the largest mass above for APS
    held: Coverage  # the sets that the level is promised for
    seen: Coverage  # the same with the most probable class, as a person sees them
    deviation: float


@dataclass(frozen=True, slots=True)
class SetsMeasured:
    level: float
    fitted_rows: dict[str, int]
    fitted_groups: dict[str, int]
    lac: dict[str, SetsResult]
    aps: dict[str, SetsResult]

    def mean_coverage(self, method: Method) -> float:
        """Over the subsets, of the sets that the level is promised for."""
        results = self.lac if method == "lac" else self.aps
        return float(np.mean([result.held.share for result in results.values()]))


def measure_sets(conformal: Conformal, known: Mapping[str, KnownRows]) -> SetsMeasured:
    """`known` are test rows, by subset, with logits divided by their temperatures as in fitting."""
    return SetsMeasured(
        level=conformal.level,
        fitted_rows=conformal.rows,
        fitted_groups=conformal.groups,
        lac={name: _result(conformal, "lac", name, rows) for name, rows in known.items()},
        aps={name: _result(conformal, "aps", name, rows) for name, rows in known.items()},
    )


def _result(conformal: Conformal, method: Method, subset: str, rows: KnownRows) -> SetsResult:
    sets_of = lac_sets if method == "lac" else aps_sets
    sets = sets_of(rows.logits, conformal.thresholds(method)[subset])
    held = coverage(sets, rows.targets, rows.groups)
    return SetsResult(
        threshold=conformal.shares(method)[subset],
        held=held,
        seen=coverage(with_top(sets, rows.logits), rows.targets, rows.groups),
        deviation=held.deviation(conformal.level, fitted_on=conformal.groups[subset]),
    )
