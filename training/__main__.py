"""python -m training train|export|… RECIPE --out OUT: the only place where a training process starts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from rich.console import Console

from app.bundle.errors import BundleError
from app.bundle.manifest import Task
from app.runtime.errors import RuntimeFault
from training.checkpoint import CheckpointInvalid, load_checkpoint, save_checkpoint
from training.choose import choose as choose_among
from training.choose import judge
from training.data.cache import Cache
from training.data.check import ANY_INPUTS
from training.data.check import check as check_entries
from training.data.dataset import Dataset
from training.data.errors import DataError
from training.data.findings import print_findings
from training.data.home import Home
from training.data.manifest import read_manifest
from training.encoders.contract import EncoderUnfit
from training.evaluate import evaluate, report_of
from training.export.bundle import bundle_folder, publish
from training.export.graphs import GraphFrozen, export_graphs
from training.export.parity import ParityBroken
from training.export.variants import GatesFailed, Smaller, make_variant, origin_of
from training.fit.distributed import joined_world
from training.fit.state import forget_states
from training.fusion.contract import COMBINATIONS
from training.measure.report import write_report
from training.progress import decoding, downloads, silent, stages
from training.recipe import Recipe
from training.recipes.registry import RECIPES
from training.report import print_choice, print_gates, print_metrics
from training.run import Where
from training.run import train as train_recipe

_FAULTS: Final = (
    DataError, CheckpointInvalid, EncoderUnfit, ParityBroken, GraphFrozen, RuntimeFault, BundleError,
    FileExistsError,
)  # fmt: skip

app = typer.Typer(
    help="Train, measure, export and verify.", no_args_is_help=True, pretty_exceptions_enable=False
)
_console = Console()

_Name = Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")]
_Out = Annotated[Path, typer.Option(help="Folder for the checkpoint, the report and the bundle.")]
_Data = Annotated[
    Path | None, typer.Option(help="Folder with the data sets; without it they are downloaded.")
]
_Cache = Annotated[Path, typer.Option(help="Where downloads and decoded rows are kept.")]
_Version = Annotated[int, typer.Option(min=1, help="Version of the bundle; one is published once.")]
_Seed = Annotated[int, typer.Option(min=0, help="One seed, one result, on the same kind of machine.")]
_Fusion = Annotated[
    str | None, typer.Option(help="LEVEL/METHOD instead of the recipe's own, such as model/low_rank.")
]
_Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto takes a GPU if there is one.")]


@app.command()
def train(
    name: _Name,
    out: _Out,
    data: _Data = None,
    cache: _Cache = Path("data"),
    seed: _Seed = 0,
    version: _Version = 1,
    fusion: _Fusion = None,
    device: _Device = "auto",
) -> None:
    """Train a recipe, print what it is worth, and publish a verified bundle under OUT/bundle.

    A run that was interrupted goes on where it was when the same command is given again. Under torchrun the
    processes share every batch.
    """
    recipe, started = _recipe(name, fusion), time.monotonic()
    destination = bundle_folder(out, recipe, number=version)
    with _refusing(), joined_world() as world:
        if destination.exists():
            raise FileExistsError(f"{destination} exists. Choose another --version or --out.")
        dataset = _load(recipe, data, cache)
        where = Where(device=_device(device), world=world, state_folder=out / "state")
        stage = stages(_console) if world.is_first else silent
        trained = train_recipe(recipe, dataset, seed=seed, stage=stage, where=where)
        if not world.is_first:
            return
        checkpoint, found = evaluate(trained, recipe, dataset, seed=seed, stage=stage)
        save_checkpoint(out, checkpoint)
        write_report(report_of(found, recipe, trained), out / "report")
        forget_states(out / "state")
        _publish(recipe, dataset, out, version=version)
    print_metrics(checkpoint.metrics, _console)
    _console.print(f"Done in {time.monotonic() - started:.0f} s.")


@app.command()
def export(
    name: _Name,
    out: _Out,
    data: _Data = None,
    cache: _Cache = Path("data"),
    version: _Version = 1,
    fusion: _Fusion = None,
) -> None:
    """Publish OUT's checkpoint as a bundle again, verified against real rows."""
    recipe = _recipe(name, fusion)
    with _refusing():
        _publish(recipe, _load(recipe, data, cache), out, version=version)


@app.command()
def choose(
    name: _Name,
    out: _Out,
    among: Annotated[
        str, typer.Option(help="LEVEL/METHOD, separated by commas; the first stands unless one is better.")
    ],
    data: _Data = None,
    cache: _Cache = Path("data"),
    seed: _Seed = 0,
    device: _Device = "auto",
) -> None:
    """Train a recipe with several fusions and say which is best on validation rows, and by how much."""
    recipes = [_recipe(name, fusion) for fusion in among.split(",")]
    with _refusing():
        dataset = _load(recipes[0], data, cache)
        judged = []
        for recipe in recipes:
            folder = out / "state" / f"{recipe.fusion.level}-{recipe.fusion.method}"
            where = Where(device=_device(device), state_folder=folder)
            _console.print(f"[bold]{recipe.fusion.level}/{recipe.fusion.method}[/bold]")
            trained = train_recipe(recipe, dataset, seed=seed, stage=stages(_console), where=where)
            judged.append(judge(trained, recipe, dataset))
    choice = choose_among(judged)
    (out / "choice.json").write_text(json.dumps(asdict(choice), indent=1) + "\n")
    print_choice(choice, _console)


@app.command()
def variant(
    name: _Name,
    out: _Out,
    precision: Annotated[Smaller, typer.Option(help="int8 for CPUs, float16 for GPUs.")] = "int8",
    data: _Data = None,
    cache: _Cache = Path("data"),
    version: _Version = 1,
    fusion: _Fusion = None,
    untimed: Annotated[  # noqa: FBT002 - a switch on the command line
        bool, typer.Option("--untimed", help="Publish even where its speed cannot be measured.")
    ] = False,
) -> None:
    """Publish a smaller, faster bundle made from OUT's own, as NAME-int8 or NAME-float16.

    It must pass every gate against the float32 bundle: accuracy, same answers, calibration, size and time. If
    one fails nothing is published, it is named with its number, and the exit code is 3.
    """
    recipe = _recipe(name, fusion)
    with _refusing():
        dataset = _load(recipe, data, cache)
        origin = origin_of(out, load_checkpoint(out, recipe), recipe, number=version)
        try:
            made = make_variant(origin, dataset, out, precision=precision, is_untimed_allowed=untimed)
        except GatesFailed as failure:
            print_gates(failure.verdict.as_json(), _console)
            Console(stderr=True).print(f"[red]error:[/red] {failure}", highlight=False, soft_wrap=True)
            raise typer.Exit(3) from failure
    print_gates(made.verdict.as_json(), _console)
    _console.print(f"Published {made.published.folder} ({made.published.size_bytes / 1e6:.2f} MB).")


@app.command()
def check(
    manifest: Annotated[
        Path, typer.Argument(help="JSONL, CSV or Parquet: id, image, text, audio, label, split.")
    ],
    labels: Annotated[
        str | None, typer.Option(help="Known labels, separated by commas; else those of training rows.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what is found there, too.")] = None,
    task: Annotated[
        Task, typer.Option(help="One label for each row, or any number, separated by ;")
    ] = "classification",
) -> None:
    """Open and decode every input of a manifest: exit 0 if all rows are fit to train on, 2 if not."""
    known = None if labels is None else tuple(labels.split(","))
    with _refusing():
        entries = read_manifest(manifest, task=task)
        with decoding(_console) as advance:
            findings = check_entries(entries, ANY_INPUTS, known, advance=advance)
    print_findings(findings, _console)
    if json_file is not None:
        json_file.write_text(json.dumps(findings.as_json(), indent=1, ensure_ascii=False) + "\n")
    if not findings.is_clean:
        raise typer.Exit(2)


def _publish(recipe: Recipe, dataset: Dataset, out: Path, *, version: int) -> None:
    """From the files and not from memory, so that `export` later gives the same."""
    checkpoint, destination = load_checkpoint(out, recipe), bundle_folder(out, recipe, number=version)
    with _console.status("export"):
        graphs = export_graphs(checkpoint.model, recipe.inputs)
        published = publish(checkpoint, recipe, graphs, dataset.test, destination, number=version)
    parity = published.parity
    _console.print(
        f"Published {destination} ({published.size_bytes / 1e6:.1f} MB). Largest difference from torch on "
        f"{parity.rows} rows and every subset: {parity.split_difference:.1e} split, "
        f"{parity.fused_difference:.1e} fused; {parity.flips} labels differ."
    )


def _load(recipe: Recipe, data: Path | None, cache: Path) -> Dataset:
    with downloads(_console) as fetched, decoding(_console) as decoded:
        home = Home(data) if data is not None else Home(cache, downloads=fetched)
        return recipe.load(home, Cache(cache / "decoded", advance=decoded))


def _recipe(name: str, fusion: str | None) -> Recipe:
    if name not in RECIPES:
        raise typer.BadParameter(f"'{name}' is not a recipe. Choose one of: {', '.join(RECIPES)}.")
    recipe = RECIPES[name]()
    if fusion is None:
        return recipe
    chosen = tuple(fusion.split("/"))
    found = [(level, method) for level, method in COMBINATIONS if (level, method) == chosen]
    if not found:
        known = ", ".join(f"{level}/{method}" for level, method in COMBINATIONS)
        raise typer.BadParameter(f"'{fusion}' is no fusion. Choose one of: {known}.")
    return recipe.with_fusion(*found[0])


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def _refusing() -> Iterator[None]:
    """Say in one sentence what is wrong; a traceback would help nobody here."""
    try:
        yield
    except _FAULTS as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
