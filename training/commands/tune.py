"""`tune`: a search of a recipe's settings."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import (
    CacheFolder,
    Data,
    DeviceName,
    Epochs,
    Out,
    OwnRecipeName,
    Seed,
    device_of,
)
from training.commands.publishing import CONSOLE, load_rows
from training.commands.refusing import refusing
from training.progress import stages
from training.recipe import Recipe
from training.recipes.wanted import Wanted
from training.report import print_search
from training.run import Watch, Where
from training.run import train as train_recipe


def tune(
    name: OwnRecipeName,
    out: Out,
    trials: Annotated[int, typer.Option(min=1, help="So many more; the same OUT goes on from its own.")],
    data: Data = None,
    cache: CacheFolder = Path("data"),
    seed: Seed = 0,
    epochs: Epochs = None,
    device: DeviceName = "auto",
) -> None:
    """Search a recipe's rates, weights, fusion and width by Optuna: lowest loss on validation rows."""
    from training.search import search  # of the extra `tune`

    with refusing():
        recipe = Wanted(recipe=name, epochs=epochs).make()
        out.mkdir(parents=True, exist_ok=True)
        dataset = load_rows(recipe, data, cache)
        where = Where(device=device_of(device))

        def objective(tried: Recipe, watch: Watch) -> float:
            run = train_recipe(tried, dataset, seed=seed, stage=stages(CONSOLE), where=where, watch=watch)
            return run.validation_nll

        found = search(recipe, objective, out, trials=trials, seed=seed, provenance=dataset.provenance)
    (out / "search.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
    print_search(found, CONSOLE)
