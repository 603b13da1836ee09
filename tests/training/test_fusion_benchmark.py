from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.fusion import CELLS_FILE, FUSIONS, Bench, Cell, kept_cells, read_cells, table_of
from tests.training.tiny_xor import tiny_xor
from training.data.dataset import Dataset
from training.data.xor import ATTAINABLE
from training.fusion.contract import COMBINATIONS


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return tiny_xor().load(None, None)  # type: ignore[arg-type]  # made from a seed, not read


def cell(fusion: str = "feature/tensor", *, seed: int = 0, accuracy: float = 0.5) -> Cell:
    return Cell(
        set="xor",
        seed=seed,
        fusion=fusion,
        is_joint=True,
        identity="0",
        accuracy={"image": 0.25, "image+text": accuracy},
        nll={"image": 1.4, "image+text": 0.7},
        parameters=1_234,
        seconds=2.4,
    )


def test_all_fusions_have_a_name() -> None:
    assert len(set(FUSIONS)) == len(COMBINATIONS) == 25
    assert "prediction/multiply" in FUSIONS


@pytest.mark.parametrize("is_joint", [True, False])
def test_a_finished_cell_is_not_trained_again(rows: Dataset, tmp_path: Path, is_joint: bool) -> None:  # noqa: FBT001
    first = Bench(tiny_xor(), rows, tmp_path, is_joint=is_joint).cell("feature/sum", seed=0)
    assert set(first.accuracy) == set(first.nll) == set(ATTAINABLE)
    assert first.parameters > 0
    later = Bench(tiny_xor(), rows, tmp_path, is_joint=is_joint)
    assert later.cell("feature/sum", seed=0) == first
    later.cell("prediction/mean", seed=0)
    assert [one.fusion for one in read_cells(tmp_path / "cells.jsonl")] == ["feature/sum", "prediction/mean"]


def test_cells_of_another_recipe_are_not_taken_for_this_ones(rows: Dataset, tmp_path: Path) -> None:
    Bench(tiny_xor(), rows, tmp_path, is_joint=True).cell("feature/sum", seed=0)
    other = tiny_xor()
    other = replace(other, schedule=replace(other.schedule, learning_rate=1e-3))
    Bench(other, rows, tmp_path, is_joint=True).cell("feature/sum", seed=0)
    assert len({one.identity for one in read_cells(tmp_path / "cells.jsonl")}) == 2


def test_a_line_that_was_cut_is_removed(rows: Dataset, tmp_path: Path) -> None:
    bench = Bench(tiny_xor(), rows, tmp_path, is_joint=True)
    whole = bench.cell("feature/sum", seed=0)
    lines = tmp_path / "cells.jsonl"
    kept = lines.read_text()
    lines.write_text(kept + kept[:40])
    again = Bench(tiny_xor(), rows, tmp_path, is_joint=True)
    assert lines.read_text() == kept
    assert again.cell("feature/sum", seed=0) == whole


def test_the_tables_are_of_all_that_belongs_together(tmp_path: Path) -> None:
    """Of another command's set, too; not of a recipe or of data that are no longer asked for."""
    asked, other = cell(), replace(cell(), set="digits", identity="1")
    lines = [
        asked, replace(asked, seed=1), replace(asked, identity="older"),
        replace(other, identity="older"), other, other,
    ]  # fmt: skip
    told = "".join(json.dumps(asdict(one)) + "\n" for one in lines)
    (tmp_path / CELLS_FILE).write_text(told + '{"set": "cut')
    assert kept_cells(tmp_path, {"xor": asked.identity}) == [other, asked, replace(asked, seed=1)]
    assert (tmp_path / CELLS_FILE).read_text().endswith("cut")  # another command may be writing it


def test_the_table_tells_means_with_intervals_best_first() -> None:
    worse = cell("feature/sum", accuracy=0.25)
    cells = [worse, replace(worse, seed=1), *(cell(seed=at, accuracy=0.5 + at / 100) for at in range(2))]
    table = table_of(cells)
    assert "**xor**: encoders trained along with each fusion; 2 seeds" in table
    rows = [line for line in table.splitlines() if line.startswith("| feature")]
    # Half the range of two values is their deviation over the root of two; Student's t of one degree is 12.7.
    assert rows[0] == "| feature/tensor | 50.5 ± 6.4 | 37.8 ± 3.2 | 0.700 ± 0.000 | 1,234 | 2 |"
    assert rows[1].startswith("| feature/sum | 25.0 ± 0.0 |")


def test_one_seed_has_no_interval() -> None:
    table = table_of([cell()])
    assert "one seed, so no interval" in table
    assert "±" not in table
