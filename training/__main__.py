"""python -m training train|export|… RECIPE --out OUT: the only place where a training process starts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from rich.console import Console

from app.bundle.errors import BundleError
from app.bundle.manifest import MODALITIES, Modality, Task
from app.runtime.errors import RuntimeFault
from training.board import board
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
from training.measure.report import write_report
from training.progress import Stage, decoding, downloads, stages
from training.recipe import Recipe
from training.recipes.finetune import FINETUNE, OwnRows
from training.recipes.wanted import NAMES, RecipeUnfit, Wanted, load_wanted, save_wanted
from training.report import print_choice, print_gates, print_metrics, print_search, print_seeds
from training.run import Trained, Watch, Where
from training.run import train as train_recipe
from training.seeds import scores_over_seeds

_FAULTS: Final = (
    DataError, CheckpointInvalid, EncoderUnfit, ParityBroken, GraphFrozen, RuntimeFault, BundleError,
    FileExistsError,
)  # fmt: skip

app = typer.Typer(
    help="Train, measure, export and verify.", no_args_is_help=True, pretty_exceptions_enable=False
)
_console = Console()

_Name = Annotated[str, typer.Argument(help=f"One of: {', '.join(NAMES)}.")]
_Out = Annotated[Path, typer.Option(help="Folder for the checkpoint, the report and the bundle.")]
_Data = Annotated[
    Path | None, typer.Option(help="Folder with the data sets; without it they are downloaded.")
]
_Cache = Annotated[Path, typer.Option(help="Where downloads and decoded rows are kept.")]
_Version = Annotated[int, typer.Option(min=1, help="Version of the bundle; one is published once.")]
_Seed = Annotated[int, typer.Option(min=0, help="One seed, one result, on the same kind of machine.")]
_Seeds = Annotated[int, typer.Option(min=1, help="So many, from --seed on; the best one is published.")]
_Board = Annotated[bool, typer.Option("--tensorboard", help="Write OUT/tensorboard as the run goes on.")]
_Fusion = Annotated[
    str | None, typer.Option(help="LEVEL/METHOD instead of the recipe's own, such as model/low_rank.")
]
_Manifest = Annotated[
    Path | None, typer.Option(help=f"{FINETUNE}: the table of rows, JSONL, CSV or Parquet.")
]
_Encoder = Annotated[
    list[str] | None,
    typer.Option(
        help=f"{FINETUNE}: MODALITY=ENCODER for each modality that is read: an id of the Hugging Face hub "
        "(ID@COMMIT for one commit), a folder, or residual, plain; ngrams, convolution, transformer; mel."
    ),
]
_Tune = Annotated[
    str | None,
    typer.Option(
        "--tune", help=f"{FINETUNE}: modalities whose pretrained weights learn, too, separated by commas."
    ),
]
_Task = Annotated[Task, typer.Option(help=f"{FINETUNE}: one label for each row, or any number.")]
_Called = Annotated[str | None, typer.Option("--name", help=f"{FINETUNE}: name of the bundle.")]
_Epochs = Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's own.")]
_BatchSize = Annotated[int | None, typer.Option(min=2, help="Instead of the recipe's own.")]
_LearningRate = Annotated[float | None, typer.Option(min=0, help="Instead of the recipe's own.")]
_Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto takes a GPU if there is one.")]


@app.command()
def train(
    name: _Name,
    out: _Out,
    data: _Data = None,
    cache: _Cache = Path("data"),
    seed: _Seed = 0,
    version: _Version = 1,
    seeds: _Seeds = 1,
    *,
    tensorboard: _Board = False,
    fusion: _Fusion = None,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    learning_rate: _LearningRate = None,
    manifest: _Manifest = None,
    encoder: _Encoder = None,
    tuned: _Tune = None,
    task: _Task = "classification",
    called: _Called = None,
    device: _Device = "auto",
) -> None:
    """Train a recipe, print what it is worth, and publish a verified bundle under OUT/bundle.

    A run that was interrupted goes on where it was when the same command is given again. Under torchrun the
    processes share every batch.
    """
    started = time.monotonic()
    wanted = Wanted(
        recipe=name,
        fusion=fusion,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        own_rows=_own_rows(manifest, encoder or [], tuned, task, called),
    )
    with _refusing():
        with joined_world() as world:
            console = _console if world.is_first else Console(quiet=True)
            with world.first_ahead():  # it downloads and decodes; the others find it done
                recipe = wanted.make()
                destination = bundle_folder(out, recipe, number=version)
                if destination.exists():
                    raise FileExistsError(f"{destination} exists. Choose another --version or --out.")
                dataset = _load(recipe, data, cache, console)
            where = Where(device=_device(device), world=world, state_folder=out / "state")
            board_folder = out / "tensorboard" if tensorboard and world.is_first else None
            runs = [
                _train(recipe, dataset, one, where, stages(console), board_folder)
                for one in range(seed, seed + seeds)
            ]
        if not world.is_first:
            return
        measured = [
            evaluate(run, recipe, dataset, seed=run.run["seed"], stage=stages(console)) for run in runs
        ]
        best = min(range(seeds), key=lambda at: runs[at].validation_nll)
        checkpoint, found = measured[best]
        save_checkpoint(out, checkpoint)
        save_wanted(out, wanted)
        write_report(report_of(found, recipe, runs[best]), out / "report")
        forget_states(out / "state")
        _publish(recipe, dataset, out, version=version)
    if seeds > 1:
        scores = scores_over_seeds([one.metrics for one, _ in measured])
        told = {subset: {name: asdict(value) for name, value in of.items()} for subset, of in scores.items()}
        (out / "seeds.json").write_text(json.dumps(told, indent=1) + "\n")
        print_seeds(scores, [run.validation_nll for run in runs], seed + best, _console)
    print_metrics(checkpoint.metrics, _console)
    _console.print(f"Done in {time.monotonic() - started:.0f} s.")


@app.command()
def export(
    name: _Name,
    out: _Out,
    data: _Data = None,
    cache: _Cache = Path("data"),
    version: _Version = 1,
) -> None:
    """Publish OUT's checkpoint as a bundle again, as it was trained, verified against real rows."""
    with _refusing():
        recipe = load_wanted(out, name).make()
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
    with _refusing():
        recipes = [Wanted(recipe=name, fusion=fusion).make() for fusion in among.split(",")]
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
    untimed: Annotated[  # noqa: FBT002 - a switch on the command line
        bool, typer.Option("--untimed", help="Publish even where its speed cannot be measured.")
    ] = False,
) -> None:
    """Publish a smaller, faster bundle made from OUT's own, as NAME-int8 or NAME-float16.

    It must pass every gate against the float32 bundle: accuracy, same answers, calibration, size and time. If
    one fails nothing is published, it is named with its number, and the exit code is 3.
    """
    with _refusing():
        recipe = load_wanted(out, name).make()
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


@app.command()
def tune(
    name: _Name,
    out: _Out,
    trials: Annotated[int, typer.Option(min=1, help="So many more; the same OUT goes on from its own.")],
    data: _Data = None,
    cache: _Cache = Path("data"),
    seed: _Seed = 0,
    epochs: _Epochs = None,
    device: _Device = "auto",
) -> None:
    """Search a recipe's rates, weights, fusion and width by Optuna: lowest loss on validation rows."""
    from training.search import search  # of the extra `tune`

    with _refusing():
        recipe = Wanted(recipe=name, epochs=epochs).make()
        dataset = _load(recipe, data, cache)
        where = Where(device=_device(device))

        def objective(tried: Recipe, watch: Watch) -> float:
            run = train_recipe(tried, dataset, seed=seed, stage=stages(_console), where=where, watch=watch)
            return run.validation_nll

        found = search(recipe, objective, out, trials=trials, seed=seed)
    (out / "search.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
    print_search(found, _console)


def _train(
    recipe: Recipe, dataset: Dataset, seed: int, where: Where, stage: Stage, board_folder: Path | None
) -> Trained:
    """One seed; its state lies apart from the others'."""
    assert where.state_folder is not None, "the command always keeps a state"
    own = replace(where, state_folder=where.state_folder / f"seed{seed}")
    if board_folder is None:
        return train_recipe(recipe, dataset, seed=seed, stage=stage, where=own)
    with board(board_folder / f"seed{seed}") as told:
        return train_recipe(recipe, dataset, seed=seed, stage=told.stage(stage), where=own, watch=told.watch)


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


def _load(recipe: Recipe, data: Path | None, cache: Path, console: Console = _console) -> Dataset:
    with downloads(console) as fetched, decoding(console) as decoded:
        home = Home(data) if data is not None else Home(cache, downloads=fetched)
        return recipe.load(home, Cache(cache / "decoded", advance=decoded))


def _own_rows(
    manifest: Path | None, encoders: list[str], tune: str | None, task: Task, name: str | None
) -> OwnRows | None:
    """None where none of it was said. Raises BadParameter."""
    if manifest is None and not encoders and tune is None and name is None:
        return None
    if manifest is None or not encoders:
        raise typer.BadParameter(f"{FINETUNE} needs --manifest, and --encoder for each modality.")
    try:
        return OwnRows(
            manifest=str(manifest.resolve()),
            encoders=dict(_encoder_of(said) for said in encoders),
            tune=tuple(_modality(said) for said in tune.split(",")) if tune else (),
            task=task,
            name=name or FINETUNE,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _encoder_of(said: str) -> tuple[Modality, str]:
    """`image=ID`; a folder becomes an absolute path, so that export finds it from anywhere."""
    modality, _, source = said.partition("=")
    if not source:
        raise ValueError(f"'{said}' is not MODALITY=ENCODER, such as image=google/vit-base-patch16-224.")
    return _modality(modality), str(Path(source).resolve()) if Path(source).is_dir() else source


def _modality(said: str) -> Modality:
    for name in MODALITIES:
        if said == name:
            return name
    raise ValueError(f"'{said}' is no modality. There are: {', '.join(MODALITIES)}.")


def _device(name: str) -> torch.device:
    """Under torchrun `cuda` is the GPU that joined_world chose for this process."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter("torch finds no GPU here. Choose --device cpu.")
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


@contextmanager
def _refusing() -> Iterator[None]:
    """Say in one sentence what is wrong; a traceback would help nobody here."""
    try:
        yield
    except RecipeUnfit as error:
        raise typer.BadParameter(str(error)) from error
    except _FAULTS as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
