"""The page holds every number of the JSON, needs nothing but itself, and stays well-formed."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.measure.example import LABELS, example_report
from training.measure.report import (
    Report,
    around,
    figure,
    gain,
    measured_of,
    most_confused,
    page,
    percent,
    write_report,
)
from training.measure.scores import Score
from training.measure.subsets import measure_slices, measure_subsets


@pytest.fixture(scope="module")
def report() -> Report:
    return example_report(rows=600)


@pytest.fixture(scope="module")
def written(report: Report, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run") / "report"
    write_report(report, folder)
    assert {file.name for file in folder.iterdir()} == {"index.html", "report.json"}
    return (folder / "index.html").read_text(encoding="utf-8"), json.loads(
        (folder / "report.json").read_text()
    )


class _Balanced(HTMLParser):
    """Fails where a tag is closed that is not open. Collects ids and what is linked to."""

    void = frozenset(("meta", "br", "link", "img"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                assert value not in self.ids
                self.ids.add(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<path/>` is open and closed."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else(written: tuple[str, dict[str, Any]]) -> None:
    parsed = _Balanced(written[0])
    assert parsed.open == []
    assert {"subsets", "sets", "robustness", "confusion", "more", "slices", "training"} <= parsed.ids
    assert {link.removeprefix("#") for link in parsed.links} <= parsed.ids
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<img", written[0])


def test_every_number_of_the_scores_is_on_the_page(
    report: Report, written: tuple[str, dict[str, Any]]
) -> None:
    text = html.unescape(written[0])
    told = list(figures(report))
    assert len(told) > 400
    assert [one for one in told if one not in text] == []


def test_the_json_holds_what_was_measured(report: Report, written: tuple[str, dict[str, Any]]) -> None:
    numbers = written[1]
    assert set(numbers["by_subset"]) == set(report.by_subset)
    for subset, result in report.by_subset.items():
        for name, measured in measured_of(result.score).items():
            kept = numbers["by_subset"][subset]["score"][name]
            interval = tuple(kept["interval"]) if kept["interval"] else None
            assert (kept["value"], interval) == (measured.value, measured.interval)
    assert np.sum(numbers["confusion"]) == 600
    assert numbers["sets"]["lac"]["image"]["held"]["groups"] == 120
    assert len(numbers["robustness"]) == 6
    assert len(numbers["counter_intuitive"]["steps"]) == 12
    assert len(numbers["training"]["loss"]) == 900
    assert numbers["provenance"]["seed"] == 3


def test_what_was_not_measured_has_no_section(report: Report) -> None:
    short = Report(
        title="Text alone",
        summary="One modality.",
        labels=LABELS,
        provenance={},
        by_subset={"text": report.by_subset["text"]},
    )
    text = page(short)
    parsed = _Balanced(text)
    assert parsed.open == []
    assert parsed.ids == {"subsets", "reliability", "risk", "provenance"}
    assert gain(short) is None
    assert "best single modality" not in text


def test_labels_that_do_not_exclude_each_other_have_their_own_columns() -> None:
    rng = np.random.default_rng(0)
    said = rng.random((200, 3))
    truth = (rng.random(said.shape) < said).astype(np.float32)
    groups = np.arange(200)
    measured = measure_subsets(lambda _: said, truth, np.ones((200, 3), bool), groups, draws=20)
    one = np.full(200, "all")
    text = page(
        Report(
            title="Labels",
            summary="",
            labels=("a", "b", "c"),
            provenance={},
            by_subset=measured.by_subset,
            counter_intuitive=measured.counter_intuitive,
            slices={"split": measure_slices(said, truth, np.zeros(200, np.int64), one, draws=20)},
        )
    )
    assert _Balanced(text).open == []
    assert "mean average precision" in text
    assert "AURC" not in text
    assert ">\N{EN DASH}<" in text  # one group: no interval


def test_names_are_text_not_markup(written: tuple[str, dict[str, Any]]) -> None:
    assert "&lt;nine&gt;" in written[0]
    assert "<nine>" not in written[0]


def test_many_labels_have_their_mistakes_instead_of_a_matrix(report: Report) -> None:
    labels = tuple(f"class {number}" for number in range(40))
    counts = np.diag(np.full(40, 9))
    counts[3, 5], counts[7, 1] = 4, 6
    wide = Report(
        title="Many", summary="", labels=labels, provenance={}, by_subset=report.by_subset, confusion=counts
    )
    assert most_confused(wide) == [("class 7", "class 1", 6), ("class 3", "class 5", 4)]
    text = page(wide)
    assert "Most frequent mistakes" in text
    assert '<table class="confusion">' not in text


def test_the_gain_is_over_the_best_single_modality(report: Report) -> None:
    accuracy = {
        name: result.score.accuracy.value
        for name, result in report.by_subset.items()
        if isinstance(result.score, Score)
    }
    assert gain(report) == pytest.approx(accuracy["image+text+audio"] - accuracy["image"])


def test_a_number_that_is_none_is_not_written(report: Report, tmp_path: Path) -> None:
    broken = Report(
        title="", summary="", labels=(), provenance={"loss": float("nan")}, by_subset=report.by_subset
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(broken, tmp_path)


def figures(report: Report) -> Iterator[str]:
    """As the page should tell them."""
    scores = [result.score for result in report.by_subset.values()]
    scores += [score for by_value in report.slices.values() for score in by_value.values()]
    for score in scores:
        for name, measured in measured_of(score).items():
            yield figure(measured.value, name)
            yield around(measured, name)
    yield from figures_of_plots(report)
    yield from figures_of_sets(report)
    yield from figures_of_steps(report)
    assert report.confusion is not None
    yield from (f">{count}<" for count in report.confusion.ravel())
    assert report.training is not None
    yield f"{report.training.loss[-1]:.4f}"


def figures_of_plots(report: Report) -> Iterator[str]:
    for result in report.by_subset.values():
        bins = result.reliability
        for rows, said, seen in zip(bins.rows, bins.confidence, bins.accuracy, strict=True):
            if rows:
                yield f"said {percent(said)}, right {percent(seen)}, {rows} rows"
    for point in (point for curve in report.robustness for point in curve.points):
        yield f"{point.level:g}: {percent(point.accuracy.value)} ({around(point.accuracy, 'accuracy')})"
        yield f"NLL {figure(point.nll.value, 'nll')}"


def figures_of_sets(report: Report) -> Iterator[str]:
    assert report.sets is not None
    for sets in (*report.sets.lac.values(), *report.sets.aps.values()):
        for measured in (sets.held, sets.seen):
            yield f">{percent(measured.share)}<small>\N{PLUS-MINUS SIGN} {percent(measured.standard_error)}"
            yield f">{measured.mean_size:.3f}<"
        yield f">{percent(sets.held.empty_share)}<"
        yield f">{sets.threshold:.5g}<"
        yield f">{sets.deviation:+.2f}<".replace("-", "\N{MINUS SIGN}")


def figures_of_steps(report: Report) -> Iterator[str]:
    assert report.counter_intuitive is not None
    yield f"<b>{percent(report.counter_intuitive.rate)}</b>"
    yield f"<b>{percent(report.counter_intuitive.marked)}</b>"
    for step in report.counter_intuitive.steps:
        for measured in (step.rate, step.marked):
            yield f">{percent(measured.value)}<small>{around(measured, 'rate')}"
        yield f">{percent(step.spoiled or 0)}<"
        yield f">{percent(step.mended or 0)}<"
