"""report/: what was measured, as one page that a person can read and one file that a program can.

`index.html` needs nothing but itself; `report.json` holds every number of it, unrounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np

from training.measure.bootstrap import Measured, Numbers, wilson
from training.measure.multilabel import MultilabelScore
from training.measure.plots import Axis, Bars, Series, forest, plot
from training.measure.robustness import Curve
from training.measure.scores import BINS, Score
from training.measure.sets import SetsMeasured
from training.measure.subsets import CounterIntuitive, SubsetResult

PAGE: Final = "index.html"
NUMBERS: Final = "report.json"
TITLES: Final = {
    "accuracy": "accuracy",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "mean_average_precision": "mean average precision",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "ece_debiased": "ECE, debiased",
    "ece_noise": "ECE of noise alone",
    "aurc": "AURC",
}
_SHARES: Final = {
    "accuracy",
    "micro_f1",
    "macro_f1",
    "mean_average_precision",
    "ece",
    "rate",
    "ece_debiased",
    "ece_noise",
}
_LOSSES: Final = 240  # points of a curve: a pixel or two each
_NARROW: Final = 0.01
_DASH: Final = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Training:
    """The loss of each step, in order."""

    loss: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What was not measured is empty or None, and has no section."""

    title: str
    summary: str
    labels: tuple[str, ...]
    provenance: Mapping[str, str | int | float]
    by_subset: Mapping[str, SubsetResult]
    counter_intuitive: CounterIntuitive | None = None
    confusion: Numbers | None = None  # [labels, labels] of all modalities, truth first
    sets: SetsMeasured | None = None
    robustness: tuple[Curve, ...] = ()
    slices: Mapping[str, Mapping[str, Score | MultilabelScore]] = field(
        default_factory=dict
    )  # by column, value
    training: Training | None = None

    @property
    def everything(self) -> str:
        """The largest subset."""
        return max(self.by_subset, key=lambda subset: subset.count("+"))

    @property
    def headline(self) -> str:
        """The metric that a person asks for first."""
        return (
            "micro_f1" if isinstance(self.by_subset[self.everything].score, MultilabelScore) else "accuracy"
        )

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        content = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: _plain(value) for name, value in content.items()}


def write_report(report: Report, folder: Path) -> None:
    """Makes the folder if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(report.as_json(), indent=1, allow_nan=False)
    (folder / NUMBERS).write_text(numbers + "\n", encoding="utf-8")
    (folder / PAGE).write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "figure": figure, "around": around, "look": look}
    return environment.get_template("report.html").render(
        report=report,
        measured=measured_of,
        titles=TITLES,
        plots=_Plots(report),
        gain=gain(report),
        most_confused=most_confused(report),
    )


def measured_of(score: Score | MultilabelScore) -> dict[str, Measured]:
    """The figures of a score that have an interval, by name."""
    named = {one.name: getattr(score, one.name) for one in fields(score)}
    return {name: value for name, value in named.items() if isinstance(value, Measured)}


def gain(report: Report) -> float | None:
    """By how much all modalities beat the best single one, in the headline metric; None if it is alone."""
    values = {
        subset: measured_of(result.score)[report.headline].value
        for subset, result in report.by_subset.items()
    }
    alone = [value for subset, value in values.items() if "+" not in subset]
    return values[report.everything] - max(alone) if len(alone) > 1 else None


def most_confused(report: Report, *, most: int = 8) -> list[tuple[str, str, int]]:
    """Truth, answer and rows of the most frequent mistakes."""
    if report.confusion is None:
        return []
    mistakes = report.confusion * (1 - np.eye(len(report.labels), dtype=np.int64))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    truth, said = np.unravel_index(order, mistakes.shape)
    found = zip(truth.tolist(), said.tolist(), strict=True)
    return [
        (report.labels[one], report.labels[other], int(mistakes[one, other]))
        for one, other in found
        if mistakes[one, other]
    ]


# --- words ------------------------------------------------------------------------------------


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def figure(value: float, metric: str) -> str:
    return percent(value) if metric in _SHARES else f"{value:.4f}"


def around(measured: Measured, metric: str) -> str:
    """`'97.1-98.2'`, in the metric's unit, finer if it is narrow; a dash where there is no interval."""
    if measured.interval is None:
        return _DASH
    scale, digits = (100, 1) if metric in _SHARES else (1, 3)
    digits += measured.interval[1] - measured.interval[0] < _NARROW
    return _DASH.join(f"{scale * end:.{digits}f}" for end in measured.interval)


def look(subset: str) -> str:
    """The style sheet's class of a subset: `'s-image-text'`."""
    return f"s-{subset.replace('+', '-')}"


# --- plots ------------------------------------------------------------------------------------


class _Plots:
    """What the page draws, made when the page asks for it. Their words are escaped already."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def headline(self) -> str:
        metric = self._report.headline
        found = {name: measured_of(r.score)[metric] for name, r in self._report.by_subset.items()}
        ends = [end for m in found.values() for end in (m.interval or (m.value, m.value))]
        low = max(0.0, float(np.floor(20 * min(ends) - 0.2)) / 20)
        rows = [(name, m.value, m.interval, look(name)) for name, m in found.items()]
        axis = Axis(f"{TITLES[metric]} on test rows, with 95 % intervals", low, 1.0, is_share=True)
        return forest(rows, x=axis, name=f"{TITLES[metric]} of every subset")

    def reliability(self, subset: str) -> str:
        bins = self._report.by_subset[subset].reliability
        filled = [at for at, rows in enumerate(bins.rows) if rows]
        notes = [
            f"said {percent(bins.confidence[at])}, right {percent(bins.accuracy[at])}, {bins.rows[at]} rows"
            for at in filled
        ]
        reach = [wilson(bins.accuracy[at], bins.rows[at]) for at in filled]
        series = Series(
            look(subset),
            [bins.confidence[at] for at in filled],
            [bins.accuracy[at] for at in filled],
            band=([low for low, _ in reach], [high for _, high in reach]),
            notes=notes,
        )
        most = max(bins.rows)
        bars = Bars([(at + 0.5) / BINS for at in range(BINS)], [rows / most for rows in bins.rows], 1 / BINS)
        share = (0.0, 0.25, 0.5, 0.75, 1.0)
        return plot(
            [series],
            x=Axis("said", 0, 1, is_share=True, ticks=share),
            y=Axis("seen", 0, 1, is_share=True, ticks=share),
            name=f"Reliability with {subset}",
            size=(270, 250),
            diagonal=True,
            bars=bars,
        )

    def risk_coverage(self) -> str:
        curves = {
            name: r.risk_coverage for name, r in self._report.by_subset.items() if r.risk_coverage is not None
        }
        series = [Series(look(name), curve.coverage, curve.risk) for name, curve in curves.items()]
        worst = max(max(curve.risk) for curve in curves.values())
        return plot(
            series,
            x=Axis("share of rows that are answered, the surest first", 0, 1, is_share=True),
            y=Axis("of those wrong", 0, max(1.08 * worst, 0.01), is_share=True),
            name="Risk against coverage for every subset",
            size=(960, 360),
        )

    def robustness(self, spoiled: str) -> str:
        curves = [curve for curve in self._report.robustness if curve.spoiled == spoiled]
        levels = [point.level for curve in curves for point in curve.points]
        series = [_robustness_series(curve) for curve in curves]
        return plot(
            series,
            x=Axis(curves[0].unit, levels[0], levels[-1]),
            y=Axis("accuracy", 0, 1, is_share=True),
            name=f"Accuracy as {spoiled} gets worse",
            size=(340, 290),
        )

    def training(self) -> str:
        assert self._report.training is not None
        loss = np.array(self._report.training.loss)
        parts = np.array_split(loss, min(len(loss), _LOSSES))
        ends = np.cumsum([len(part) for part in parts]).astype(float)
        means = [float(part.mean()) for part in parts]
        band = ([float(part.min()) for part in parts], [float(part.max()) for part in parts])
        return plot(
            [Series("s-loss", ends.tolist(), means, band=band)],
            x=Axis("step", 0, float(len(loss))),
            y=Axis("loss", 0, 1.05 * float(loss.max())),
            name="Training loss",
            size=(960, 300),
        )


def _robustness_series(curve: Curve) -> Series:
    intervals = [point.accuracy.interval or (point.accuracy.value,) * 2 for point in curve.points]
    notes = [
        f"{curve.subset}, {point.level:g}: {percent(point.accuracy.value)} "
        f"({around(point.accuracy, 'accuracy')}), NLL {figure(point.nll.value, 'nll')}"
        for point in curve.points
    ]
    return Series(
        look(curve.subset),
        [point.level for point in curve.points],
        [point.accuracy.value for point in curve.points],
        band=([low for low, _ in intervals], [high for _, high in intervals]),
        notes=notes,
    )


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and arrays to what JSON knows."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
