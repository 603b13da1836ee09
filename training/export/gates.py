"""What a variant must reach to be published beside its float32 bundle, each with what was measured.

Limits are the house's: accuracy at most half a point lower and the calibration error at most one point higher
in every subset of modalities, the same answer in 99 of 100 rows, a third of the bytes (half for float16), and
faster: the whole 95 % interval of the ratio of medians below 1, with batches of 1 and of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from app.bundle.manifest import Precision
from training.data.dataset import Rows
from training.encodings import Encodings
from training.export.race import Ratio
from training.measure.subsets import Measurements

LESS_ACCURACY: Final = 0.005
LEAST_AGREEMENT: Final = 0.99
MORE_ECE: Final = 0.01
MOST_SIZE: Final[dict[Precision, float]] = {"int8": 1 / 3, "float16": 1 / 2}
_EVEN: Final = 0.5

Rule = Literal["at most", "at least", "below"]


@dataclass(frozen=True, slots=True)
class Gate:
    """`measured` is the worst of `parts`; None where nothing could be measured."""

    name: str
    rule: Rule
    limit: float
    measured: float | None
    where: str | None = None
    parts: dict[str, float] | None = None
    note: str | None = None

    @property
    def is_met(self) -> bool:
        """NaN meets nothing."""
        if self.measured is None:
            return False
        if self.rule == "at least":
            return self.measured >= self.limit
        return self.measured < self.limit if self.rule == "below" else self.measured <= self.limit


@dataclass(frozen=True, slots=True)
class Verdict:
    gates: tuple[Gate, ...]
    is_untimed_allowed: bool = False

    @property
    def failed(self) -> tuple[Gate, ...]:
        return tuple(
            gate
            for gate in self.gates
            if not gate.is_met and not (gate.measured is None and self.is_untimed_allowed)
        )

    def as_json(self) -> list[dict[str, Any]]:
        return [
            asdict(gate) | {"is_met": None if gate.measured is None else gate.is_met} for gate in self.gates
        ]


def quality_gates(
    float32: Measurements, variant: Measurements, agreement: Mapping[str, float]
) -> tuple[Gate, ...]:
    """From both on the same test rows."""
    pairs = {
        subset: (result.score, variant.by_subset[subset].score)
        for subset, result in float32.by_subset.items()
    }
    lost = {subset: _headline(before) - _headline(after) for subset, (before, after) in pairs.items()}
    ece = {subset: after.ece.value - before.ece.value for subset, (before, after) in pairs.items()}
    return (
        _worst("accuracy lost", "at most", LESS_ACCURACY, lost),
        _worst("same answers", "at least", LEAST_AGREEMENT, agreement),
        _worst("calibration error added", "at most", MORE_ECE, ece),
    )


def size_gate(precision: Precision, *, size_bytes: int, of_bytes: int) -> Gate:
    return Gate(
        name="size",
        rule="at most",
        limit=MOST_SIZE[precision],
        measured=size_bytes / of_bytes,
        note=f"{size_bytes} of {of_bytes} bytes",
    )


def speed_gates(ratios: tuple[Ratio, ...] | None, batches: tuple[int, ...]) -> tuple[Gate, ...]:
    """`ratios` is None where the device that the variant is for is not here."""
    if ratios is None:
        return tuple(Gate(_speed(rows), "below", 1.0, None, note="not measured here") for rows in batches)
    return tuple(
        Gate(
            name=_speed(ratio.rows),
            rule="below",
            limit=1.0,
            measured=ratio.interval[1],
            parts={"ratio of medians": ratio.value, "low": ratio.interval[0], "high": ratio.interval[1]},
            note=(
                f"median {1e3 * ratio.challenger_s:.3f} ms against {1e3 * ratio.champion_s:.3f} ms in "
                f"{ratio.rounds} rounds: {ratio.value:.3f} ({ratio.interval[0]:.3f}-{ratio.interval[1]:.3f})"
            ),
        )
        for ratio in ratios
    )


def agreement_of(float32: Encodings, variant: Encodings, rows: Rows, subset: str) -> float:
    """Share of rows with the same label; of several labels a row, share of rows and labels."""
    one, other = float32.answers(rows, subset).probabilities, variant.answers(rows, subset).probabilities
    if float32.model.task == "multilabel":
        return float(((one >= _EVEN) == (other >= _EVEN)).mean())
    return float((one.argmax(axis=1) == other.argmax(axis=1)).mean())


def _speed(rows: int) -> str:
    return f"time for {rows} row{'s' if rows > 1 else ''}"


def _worst(name: str, rule: Rule, limit: float, parts: Mapping[str, float]) -> Gate:
    """NaN is the worst of all."""
    values = np.array(list(parts.values()))
    sign = 1 if rule == "at least" else -1
    at = int(np.argmin(np.where(np.isnan(values), -np.inf, sign * values)))
    return Gate(name, rule, limit, float(values[at]), where=list(parts)[at], parts=dict(parts))


def _headline(score: Any) -> float:
    found = score.micro_f1 if hasattr(score, "micro_f1") else score.accuracy
    return float(found.value)
