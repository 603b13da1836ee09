"""python -m training train|export|check: the only place where a training process starts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from app.runtime.errors import RuntimeFault
from training.checkpoint import CheckpointInvalid, load_checkpoint, save_checkpoint
from training.data.check import ANY_INPUTS
from training.data.check import check as check_entries
from training.data.corpus import Corpus
from training.data.errors import DataError
from training.data.findings import print_findings
from training.data.home import Home
from training.data.manifest import Task, read_manifest
from training.export import bundle_folder, publish
from training.onnx_graphs import GraphFrozen, export_graphs
from training.parity import ParityBroken
from training.progress import decoding, downloads, stages
from training.recipe import Recipe
from training.recipes.digits import digits
from training.report import print_metrics
from training.run import train as train_recipe

RECIPES: Final[dict[str, Callable[[], Recipe]]] = {"digits": digits}
_FAULTS: Final = (DataError, CheckpointInvalid, ParityBroken, GraphFrozen, RuntimeFault, FileExistsError)

app = typer.Typer(
    help="Train, measure, export and verify.", no_args_is_help=True, pretty_exceptions_enable=False
)
_console = Console()

_Name = Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")]
_Out = Annotated[Path, typer.Option(help="Folder for the checkpoint, the metrics and the bundle.")]
_Data = Annotated[
    Path | None, typer.Option(help="Folder with the data sets; without it they are downloaded.")
]
_Cache = Annotated[Path, typer.Option(help="Where downloads are kept.")]
_Version = Annotated[int, typer.Option(min=1, help="Version of the bundle; one is published once.")]
_Seed = Annotated[int, typer.Option(min=0, help="One seed, one result, on the same kind of machine.")]


@app.command()
def train(
    name: _Name,
    out: _Out,
    data: _Data = None,
    cache: _Cache = Path("data"),
    seed: _Seed = 0,
    version: _Version = 1,
) -> None:
    """Train a recipe, print what it is worth, and publish a verified bundle under OUT/bundle."""
    recipe, started = _recipe(name), time.monotonic()
    destination = bundle_folder(out, recipe, number=version)
    try:
        if destination.exists():
            raise FileExistsError(f"{destination} exists. Choose another --version or --out.")
        corpus = _load(recipe, data, cache)
        checkpoint = train_recipe(recipe, corpus, seed=seed, stage=stages(_console))
        save_checkpoint(out, checkpoint)
        _publish(recipe, corpus, out, version=version)
    except _FAULTS as error:
        raise _refusal(error) from error
    print_metrics(checkpoint.metrics, _console)
    _console.print(f"Done in {time.monotonic() - started:.0f} s.")


@app.command()
def export(
    name: _Name, out: _Out, data: _Data = None, cache: _Cache = Path("data"), version: _Version = 1
) -> None:
    """Publish OUT's checkpoint as a bundle again, verified against real rows."""
    recipe = _recipe(name)
    try:
        _publish(recipe, _load(recipe, data, cache), out, version=version)
    except _FAULTS as error:
        raise _refusal(error) from error


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
    ] = "multi-class",
) -> None:
    """Open and decode every input of a manifest: exit 0 if all rows are fit to train on, 2 if not."""
    known = None if labels is None else tuple(labels.split(","))
    try:
        entries = read_manifest(manifest, task=task)
        with decoding(_console) as advance:
            findings = check_entries(entries, ANY_INPUTS, known, advance=advance)
    except DataError as error:
        raise _refusal(error) from error
    print_findings(findings, _console)
    if json_file is not None:
        json_file.write_text(json.dumps(findings.as_json(), indent=1, ensure_ascii=False) + "\n")
    if not findings.is_clean:
        raise typer.Exit(2)


def _publish(recipe: Recipe, corpus: Corpus, out: Path, *, version: int) -> None:
    """From the files and not from memory, so that `export` later gives the same."""
    checkpoint, destination = load_checkpoint(out, recipe), bundle_folder(out, recipe, number=version)
    with _console.status("export"):
        graphs = export_graphs(checkpoint.model, recipe.inputs)
        published = publish(checkpoint, recipe, graphs, corpus.test, destination, number=version)
    parity = published.parity
    _console.print(
        f"Published {destination} ({published.size_bytes / 1e6:.1f} MB). Largest difference from torch on "
        f"{parity.rows} rows and every subset: {parity.split_difference:.1e} split, "
        f"{parity.fused_difference:.1e} fused; {parity.flips} labels differ."
    )


def _load(recipe: Recipe, data: Path | None, cache: Path) -> Corpus:
    if data is not None:
        return recipe.load(Home(data))
    with downloads(_console) as advance:
        return recipe.load(Home(cache, downloads=advance))


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise typer.BadParameter(f"'{name}' is not a recipe. Choose one of: {', '.join(RECIPES)}.")
    return RECIPES[name]()


def _refusal(error: Exception) -> typer.Exit:
    """Say in one sentence what is wrong; a traceback would help nobody here."""
    Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
