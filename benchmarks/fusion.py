"""Every fusion on several sets, with the seeds and the intervals: a Markdown table, and JSON.

    python -m benchmarks.fusion [--sets digits avt_digits picturewords xor] [--seeds 3] [--data DIR]
                                [--fusions all | LEVEL/METHOD ...] [--joint] [--threads 1] [--out DIR]

25 fusions x 4 sets x 3 seeds are 300 trainings, a day on two cores. So the encoders of a set and a seed are
trained once, each through a head of its own, and every fusion is trained on what they say (see
training/frozen.py). On xor no modality says anything alone, and encoders learn along with each fusion, as
everywhere with --joint.

OUT keeps one line of JSON for each finished cell, and the features: the same command goes on where it was.
Each training takes one core. For more, run commands for other --sets beside each other, with the same OUT:
the tables are of all that OUT holds by then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from app.bundle.manifest import subsets
from training.batch import Stock
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.encodings import Encodings, encode
from training.fit.state import forget_states
from training.frozen import Features, features_of, train_fusion
from training.fusion.contract import COMBINATIONS, Level, Method
from training.measure.scores import is_right, row_nll
from training.model import count_parameters
from training.progress import Stage, downloads, silent, stages
from training.recipe import Recipe
from training.recipes.registry import RECIPES
from training.run import Where, evaluation_rows, preparer_of, train
from training.seeds import over_seeds

FUSIONS: Final = tuple(f"{level}/{method}" for level, method in COMBINATIONS)
SETS: Final = ("digits", "avt_digits", "picturewords", "xor")
CELLS_FILE: Final = "cells.jsonl"
_JOINT: Final = frozenset({"xor"})  # sets whose encoders learn nothing alone


_HEADINGS: Final = """\
| fusion | all, accuracy % | mean of the subsets, accuracy % | all, NLL | parameters | s |
|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One fusion on one set with one seed, on its test rows."""

    set: str
    seed: int
    fusion: str
    is_joint: bool
    identity: str  # of the recipe and data: cells of others are not mixed in
    accuracy: dict[str, float]  # by subset
    nll: dict[str, float]  # by subset, calibrated, nats
    parameters: int  # of the fusion, its towers and heads
    seconds: float  # of training; without the encoders' where they were trained before

    @property
    def key(self) -> tuple[str, int, str]:
        return self.identity, self.seed, self.fusion

    @property
    def everything(self) -> str:
        """The largest subset."""
        return max(self.accuracy, key=lambda name: name.count("+"))

    @property
    def mean_accuracy(self) -> float:
        return statistics.fmean(self.accuracy.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=sorted(RECIPES), metavar="SET")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--fusions", nargs="+", default=["all"], choices=("all", *FUSIONS), metavar="LEVEL/METHOD"
    )
    parser.add_argument("--joint", action="store_true", help="train encoders along with every fusion")
    parser.add_argument("--threads", type=int, default=1, help="of each training; another number, other bits")
    parser.add_argument(
        "--data", type=Path, help="folder with the data sets; without it digits are downloaded"
    )
    parser.add_argument("--out", type=Path, default=Path("out/fusion"))
    given = parser.parse_args()
    fusions = FUSIONS if "all" in given.fusions else tuple(given.fusions)
    console, identities = Console(), {}
    for name in given.sets:
        recipe = RECIPES[name]()
        recipe = replace(recipe, schedule=replace(recipe.schedule, threads=given.threads))
        with downloads(console) as advance:
            home = Home(given.data) if given.data else Home(Path("data"), downloads=advance)
            dataset = recipe.load(home, Cache(given.out / "decoded"))
        bench = Bench(recipe, dataset, given.out, is_joint=given.joint or name in _JOINT)
        identities[name] = bench.identity
        for seed in range(given.seeds):
            for fusion in fusions:
                print(_line(bench.cell(fusion, seed=seed, stage=stages(console))), flush=True)
    cells = kept_cells(given.out, identities)
    table = table_of(cells)
    (given.out / "fusion.md").write_text(table + "\n", encoding="utf-8")
    told = json.dumps([asdict(cell) for cell in cells], indent=1)
    (given.out / "fusion.json").write_text(told + "\n", encoding="utf-8")
    print(table)


class Bench:
    """One set, and what is known of it in `out` from earlier."""

    def __init__(self, recipe: Recipe, dataset: Dataset, out: Path, *, is_joint: bool) -> None:
        self._recipe, self._dataset, self._out, self._is_joint = recipe, dataset, out, is_joint
        told = {"settings": recipe.settings(), "data": dataset.provenance, "is_joint": is_joint}
        self.identity = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[
            :16
        ]
        self._lines = out / CELLS_FILE
        _remove_cut_line(self._lines)
        self._done = {cell.key: cell for cell in read_cells(self._lines)}
        self._features: tuple[int, Features] | None = None  # of the last seed

    def cell(self, fusion: str, *, seed: int, stage: Stage = silent) -> Cell:
        """From earlier, or trained now and kept."""
        known = self._done.get((self.identity, seed, fusion))
        if known is not None:
            return known
        chosen = self._recipe.with_fusion(*_named(fusion))
        features = None if self._is_joint else self._features_of(seed, stage)
        started = time.monotonic()
        if features is None:
            encodings = _trained_together(chosen, self._dataset, seed=seed, stage=stage)
        else:
            encodings = train_fusion(chosen, features, self._dataset, seed=seed, stage=stage)
        seconds = time.monotonic() - started
        accuracy, nll = _on_test(encodings, self._dataset)
        cell = Cell(
            set=self._recipe.name,
            seed=seed,
            fusion=fusion,
            is_joint=self._is_joint,
            identity=self.identity,
            accuracy=accuracy,
            nll=nll,
            parameters=count_parameters(encodings.model.fusion),
            seconds=round(seconds, 1),
        )
        self._out.mkdir(parents=True, exist_ok=True)
        with self._lines.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(cell)) + "\n")
        return cell

    def _features_of(self, seed: int, stage: Stage) -> Features:
        if self._features is not None and self._features[0] == seed:
            return self._features[1]
        stem = f"{self._recipe.name}-{seed}-{self.identity}"
        path = self._out / f"{stem}.safetensors"
        if path.exists():
            features = Features.load(path, self._recipe.inputs.names)
        else:
            where = Where(state_folder=self._out / f"{stem}.state")
            features = features_of(self._recipe, self._dataset, seed=seed, stage=stage, where=where)
            features.save(path)
            forget_states(self._out / f"{stem}.state")
        self._features = seed, features
        return features


def read_cells(path: Path) -> list[Cell]:
    """Without a last line that is cut: another command may be writing it."""
    return [Cell(**json.loads(line)) for line in _whole_lines(path).splitlines()]


def kept_cells(out: Path, identities: Mapping[str, str]) -> list[Cell]:
    """All of `out` that belong together: of a set in `identities` those, else those like the set's last."""
    cells = read_cells(out / CELLS_FILE)
    known = {cell.set: cell.identity for cell in cells} | dict(identities)
    kept = {cell.key: cell for cell in cells if cell.identity == known[cell.set]}
    places = {name: at for at, name in enumerate(SETS)}
    return sorted(kept.values(), key=lambda cell: places.get(cell.set, len(places)))


def _whole_lines(path: Path) -> str:
    told = path.read_text(encoding="utf-8") if path.exists() else ""
    return told[: told.rfind("\n") + 1]


def _remove_cut_line(path: Path) -> None:
    """Of a run that was killed: the next line would be written on to it."""
    whole = _whole_lines(path)
    if path.exists() and path.read_text(encoding="utf-8") != whole:
        path.write_text(whole, encoding="utf-8")


def table_of(cells: Sequence[Cell]) -> str:
    """Markdown: a table for each set, its fusions by falling mean accuracy of all modalities together."""
    parts = []
    for name in dict.fromkeys(cell.set for cell in cells):
        ours = [cell for cell in cells if cell.set == name]
        rows: dict[str, list[Cell]] = {}
        for cell in ours:
            rows.setdefault(cell.fusion, []).append(cell)
        ranked = sorted(rows.values(), key=lambda row: -_mean(row, lambda one: one.accuracy[one.everything]))
        parts.append(
            "\n".join(
                [
                    f"**{name}**: {_caption(ours)}",
                    "",
                    _HEADINGS,
                    *map(_row, ranked),
                ]
            )
        )
    return "\n\n".join(parts)


def _caption(cells: Sequence[Cell]) -> str:
    seeds = len({cell.seed for cell in cells})
    how = (
        "encoders trained along with each fusion"
        if cells[0].is_joint
        else "encoders trained once for each seed, through heads of their own, each fusion on their features"
    )
    spread = f"{seeds} seeds, mean and 95 % interval of the mean (Student's t)"
    told = spread if seeds > 1 else "one seed, so no interval"
    return f"{how}; {told}; test rows, calibrated on validation."


def _row(cells: Sequence[Cell]) -> str:
    figures = (
        _figure([100 * cell.accuracy[cell.everything] for cell in cells], digits=1),
        _figure([100 * cell.mean_accuracy for cell in cells], digits=1),
        _figure([cell.nll[cell.everything] for cell in cells], digits=3),
        f"{cells[0].parameters:,}",
        f"{statistics.fmean(cell.seconds for cell in cells):.0f}",
    )
    return f"| {cells[0].fusion} | {' | '.join(figures)} |"


def _figure(values: Sequence[float], *, digits: int) -> str:
    """The mean, and how far the 95 % interval goes on each side of it."""
    found = over_seeds(values)
    mean = f"{found.mean:.{digits}f}"
    return mean if found.margin is None else f"{mean} ± {found.margin:.{digits}f}"


def _mean(cells: Sequence[Cell], value: Callable[[Cell], float]) -> float:
    return statistics.fmean(map(value, cells))


def _line(cell: Cell) -> str:
    return (
        f"{cell.set}, seed {cell.seed}, {cell.fusion}: all {cell.accuracy[cell.everything]:.4f}, "
        f"mean {cell.mean_accuracy:.4f}, {cell.seconds:.0f} s"
    )


def _named(fusion: str) -> tuple[Level, Method]:
    return COMBINATIONS[FUSIONS.index(fusion)]


def _trained_together(recipe: Recipe, dataset: Dataset, *, seed: int, stage: Stage) -> Encodings:
    """With what it needs to answer test rows."""
    trained = train(recipe, dataset, seed=seed, stage=stage)
    stock = Stock(dataset.test.items, recipe.inputs, preparer_of(recipe, trained.tokenizer_json))
    return encode(trained.model, stock, dataset.test.items.counts)


def _on_test(encodings: Encodings, dataset: Dataset) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy and NLL of every subset, over the rows that bring it."""
    rows, accuracy, nll = evaluation_rows(dataset.test), {}, {}
    for subset in subsets(encodings.model.names):
        answered = encodings.answers(rows, subset)
        targets = answered.rows.targets.astype(np.int64)
        accuracy[subset] = float(is_right(answered.probabilities, targets).mean())
        nll[subset] = float(row_nll(answered.probabilities, targets).mean())
    return accuracy, nll


if __name__ == "__main__":
    main()
