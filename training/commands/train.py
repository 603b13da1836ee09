"""`train`: a recipe from rows to a verified bundle, once or over several seeds."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import typer
from rich.console import Console

from app.bundle.manifest import Fit, Task
from training.board import board
from training.checkpoint import save_checkpoint
from training.commands.options import (
    BatchSize,
    BundleName,
    CacheFolder,
    Data,
    DeviceName,
    Encoders,
    Epochs,
    FusionName,
    ImageFit,
    LearningRate,
    ManifestFile,
    Out,
    RecipeName,
    Seed,
    Seeds,
    TaskKind,
    TensorBoard,
    Tuned,
    Version,
    device_of,
    encoders_of,
    modality_of,
)
from training.commands.publishing import CONSOLE, load_rows, publish_checkpoint
from training.commands.refusing import refusing
from training.data.dataset import Dataset
from training.evaluate import evaluate, report_of
from training.export.bundle import bundle_folder
from training.fit.distributed import joined_world
from training.fit.state import forget_states
from training.measure.report import write_report
from training.progress import Stage, stages
from training.recipe import Recipe
from training.recipes.finetune import FINETUNE, OwnRows
from training.recipes.wanted import Wanted, save_wanted
from training.report import print_metrics, print_seeds
from training.run import Trained, Where
from training.run import train as train_recipe
from training.seeds import scores_over_seeds


def train(
    name: RecipeName,
    out: Out,
    data: Data = None,
    cache: CacheFolder = Path("data"),
    seed: Seed = 0,
    version: Version = 1,
    seeds: Seeds = 1,
    *,
    tensorboard: TensorBoard = False,
    fusion: FusionName = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    manifest: ManifestFile = None,
    encoder: Encoders = None,
    tuned: Tuned = None,
    task: TaskKind = "classification",
    fit: ImageFit = None,
    called: BundleName = None,
    device: DeviceName = "auto",
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
        own_rows=_own_rows(manifest, encoder or [], tuned, task, fit, called),
    )
    with refusing():
        with joined_world() as world:
            console = CONSOLE if world.is_first else Console(quiet=True)
            with world.first_ahead():  # it downloads and decodes; the others find it done
                recipe = wanted.make()
                destination = bundle_folder(out, recipe, number=version)
                if destination.exists():
                    raise FileExistsError(f"{destination} exists. Choose another --version or --out.")
                out.mkdir(parents=True, exist_ok=True)  # or be refused, before hours of training
                dataset = load_rows(recipe, data, cache, console)
            where = Where(device=device_of(device), world=world, state_folder=out / "state")
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
        best = min(range(seeds), key=lambda at: _order_of(runs[at].validation_nll))
        checkpoint, found = measured[best]
        save_checkpoint(out, checkpoint)
        save_wanted(out, wanted)
        write_report(report_of(found, recipe, runs[best]), out / "report")
        forget_states(out / "state")
        scores = scores_over_seeds([one.metrics for one, _ in measured])
        if seeds > 1:  # before what may be refused: it cost the most
            told = {
                subset: {name: asdict(value) for name, value in of.items()} for subset, of in scores.items()
            }
            (out / "seeds.json").write_text(json.dumps(told, indent=1) + "\n")
        publish_checkpoint(recipe, dataset, out, version=version)
    if seeds > 1:
        print_seeds(scores, [run.validation_nll for run in runs], seed + best, CONSOLE)
    print_metrics(checkpoint.metrics, CONSOLE)
    CONSOLE.print(f"Done in {time.monotonic() - started:.0f} s.")


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


def _order_of(loss: float) -> tuple[bool, float]:
    """What is no number comes last."""
    return math.isnan(loss), loss


def _own_rows(
    manifest: Path | None,
    encoders: list[str],
    tune: str | None,
    task: Task,
    fit: Fit | None,
    name: str | None,
) -> OwnRows | None:
    """None where none of it was said. Raises BadParameter."""
    is_other = tune is not None or task != "classification" or fit is not None or name is not None
    if manifest is None and not encoders and not is_other:
        return None
    if manifest is None or not encoders:
        raise typer.BadParameter(
            f"{FINETUNE} needs --manifest, and --encoder for each modality; --tune, --task, --fit and --name "
            "are for it alone."
        )
    try:
        return OwnRows(
            manifest=str(manifest.resolve()),
            encoders=encoders_of(encoders),
            tune=tuple(modality_of(said) for said in tune.split(",")) if tune else (),
            task=task,
            fit=fit,
            name=name or FINETUNE,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
