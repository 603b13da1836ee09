"""A model with every subset of its modalities, and whether more of them make it worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, Modality, subsets
from training.measure.bootstrap import DRAWS, Floats, Grouped, Measured, Numbers, measure_share
from training.measure.multilabel import MultilabelScore, label_reliability, row_nll_of_labels, score_labels
from training.measure.scores import (
    Reliability,
    RiskCoverage,
    Score,
    is_right,
    reliability,
    risk_coverage,
    row_nll,
    score,
)

MARKED: Final = 0.1  # nats: the truth is said to be a tenth less likely

Answer = Callable[[str], Floats]
"""Subset name -> probabilities [rows, labels] of all rows, as if only these modalities had been sent.

What it gives for a row without them is not looked at.
"""
Targets = Numbers | NDArray[np.float32]
"""Classes [rows], or 0 and 1 [rows, labels]."""


@dataclass(frozen=True, slots=True)
class SubsetResult:
    """On the rows that have these modalities or more. `risk_coverage` is None for a multilabel task."""

    score: Score | MultilabelScore
    reliability: Reliability
    risk_coverage: RiskCoverage | None


@dataclass(frozen=True, slots=True)
class Step:
    """From fewer modalities to more, on the rows that have the more."""

    fewer: str
    more: str
    rows: int
    rate: Measured  # share of rows whose NLL rises
    marked: Measured  # share of rows whose NLL rises by more than `MARKED`
    spoiled: float | None  # share of rows that were right and are no longer; None for a multilabel task
    mended: float | None


@dataclass(frozen=True, slots=True)
class CounterIntuitive:
    """P[NLL(more) > NLL(fewer)], the mean of all steps (Li et al., SimMLM, ICCV 2025).

    Where a model is nearly certain of all rows the least change counts as much as a large one, and the rate
    is that of a coin; so what is marked is told apart.
    """

    rate: float
    marked: float
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    by_subset: dict[str, SubsetResult]
    counter_intuitive: CounterIntuitive | None  # None for a model of one modality


def measure_subsets(
    answer: Answer,
    targets: Targets,
    present: NDArray[np.bool_],
    groups: Numbers,
    *,
    modalities: Sequence[Modality] = MODALITIES,
    draws: int = DRAWS,
) -> Measurements:
    """Present is bool [rows, modalities]; groups are [rows] or [rows, modalities], see `groups_of`."""
    names = [name for name in subsets(tuple(modalities)) if _rows_with(name, present, modalities).any()]
    answers = {name: answer(name) for name in names}
    found: dict[str, SubsetResult] = {}
    for name in names:
        rows = _rows_with(name, present, modalities)
        chosen = groups_of(groups[rows], name, modalities=modalities)
        found[name] = _result(answers[name][rows], targets[rows], chosen, draws=draws)
    steps = tuple(
        _step(
            (fewer, more),
            (answers[fewer][rows], answers[more][rows]),
            targets[rows],
            groups_of(groups[rows], more, modalities=modalities),
            draws=draws,
        )
        for fewer, more in _pairs(names)
        for rows in [_rows_with(more, present, modalities)]
    )
    return Measurements(found, _counter_intuitive(steps) if steps else None)


def measure_slices(
    probabilities: Floats, targets: Targets, groups: Numbers, values: NDArray[np.str_], *, draws: int = DRAWS
) -> dict[str, Score | MultilabelScore]:
    """The score of the rows that share a value of one column [rows], for each value, most rows first."""
    found, count = np.unique(values, return_counts=True)
    by_size = found[np.argsort(-count, kind="stable")]
    return {
        str(value): _score(probabilities[rows], targets[rows], groups[rows], draws=draws)
        for value in by_size
        for rows in [values == value]
    }


def groups_of(groups: Numbers, subset: str, *, modalities: Sequence[Modality] = MODALITIES) -> Numbers:
    """Groups [rows, modalities] to those [rows] of the subset's modality that has the fewest; [rows] stay.

    Where pairing crosses groups, two rows of different ones may still share what another modality holds:
    the fewest are those that repeat most.
    """
    if groups.ndim == 1:
        return groups
    columns = [groups[:, at] for at, name in enumerate(modalities) if name in subset.split("+")]
    return min(columns, key=lambda column: len(np.unique(column)))


# --- one subset -------------------------------------------------------------------------------


def _rows_with(subset: str, present: NDArray[np.bool_], modalities: Sequence[Modality]) -> NDArray[np.bool_]:
    wanted = np.array([name in subset.split("+") for name in modalities])
    rows: NDArray[np.bool_] = np.asarray((present | ~wanted).all(axis=1))
    return rows


def _score(
    probabilities: Floats, targets: Targets, groups: Numbers, *, draws: int
) -> Score | MultilabelScore:
    if targets.ndim == 1:
        return score(probabilities, targets.astype(np.int64), groups, draws=draws)
    return score_labels(probabilities, targets.astype(np.float64), groups, draws=draws)


def _result(probabilities: Floats, targets: Targets, groups: Numbers, *, draws: int) -> SubsetResult:
    scored = _score(probabilities, targets, groups, draws=draws)
    if targets.ndim == 2:
        return SubsetResult(scored, label_reliability(probabilities, targets.astype(np.float64)), None)
    right, confidence = is_right(probabilities, targets.astype(np.int64)), probabilities.max(axis=1)
    return SubsetResult(scored, reliability(confidence, right), risk_coverage(confidence, ~right))


# --- from fewer to more -----------------------------------------------------------------------


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every subset and every larger one that holds it."""
    for more in names:
        for fewer in names:
            if set(fewer.split("+")) < set(more.split("+")):
                yield fewer, more


def _counter_intuitive(steps: tuple[Step, ...]) -> CounterIntuitive:
    return CounterIntuitive(
        rate=float(np.mean([step.rate.value for step in steps])),
        marked=float(np.mean([step.marked.value for step in steps])),
        steps=steps,
    )


def _step(
    names: tuple[str, str],
    probabilities: tuple[Floats, Floats],
    targets: Targets,
    groups: Numbers,
    *,
    draws: int,
) -> Step:
    fewer, more = (_nll_of(said, targets) for said in probabilities)
    grouped = Grouped.of(groups)
    spoiled = mended = None
    if targets.ndim == 1:
        before, after = (is_right(said, targets.astype(np.int64)) for said in probabilities)
        spoiled, mended = float((before & ~after).mean()), float((~before & after).mean())
    return Step(
        fewer=names[0],
        more=names[1],
        rows=len(more),
        rate=measure_share(more > fewer, grouped, draws=draws),
        marked=measure_share(more > fewer + MARKED, grouped, draws=draws),
        spoiled=spoiled,
        mended=mended,
    )


def _nll_of(probabilities: Floats, targets: Targets) -> Floats:
    if targets.ndim == 1:
        return row_nll(probabilities, targets.astype(np.int64))
    return row_nll_of_labels(probabilities, targets.astype(np.float64))
