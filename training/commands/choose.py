"""`choose`: which of several fusions a recipe should have."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from training.choose import choose as choose_among
from training.choose import judge
from training.commands.options import CacheFolder, Data, DeviceName, Out, OwnRecipeName, Seed, device_of
from training.commands.publishing import CONSOLE, load_rows
from training.commands.refusing import refusing
from training.progress import stages
from training.recipes.wanted import Wanted
from training.report import print_choice
from training.run import Where
from training.run import train as train_recipe


def choose(
    name: OwnRecipeName,
    out: Out,
    among: Annotated[
        str, typer.Option(help="LEVEL/METHOD, separated by commas; the first stands unless one is better.")
    ],
    data: Data = None,
    cache: CacheFolder = Path("data"),
    seed: Seed = 0,
    device: DeviceName = "auto",
) -> None:
    """Train a recipe with several fusions and say which is best on validation rows, and by how much."""
    with refusing():
        recipes = [Wanted(recipe=name, fusion=fusion).make() for fusion in among.split(",")]
        out.mkdir(parents=True, exist_ok=True)
        dataset = load_rows(recipes[0], data, cache)
        judged = []
        for recipe in recipes:
            folder = out / "state" / f"{recipe.fusion.level}-{recipe.fusion.method}"
            where = Where(device=device_of(device), state_folder=folder)
            CONSOLE.print(f"[bold]{recipe.fusion.level}/{recipe.fusion.method}[/bold]")
            trained = train_recipe(recipe, dataset, seed=seed, stage=stages(CONSOLE), where=where)
            judged.append(judge(trained, recipe, dataset))
    choice = choose_among(judged)
    (out / "choice.json").write_text(json.dumps(asdict(choice), indent=1) + "\n")
    print_choice(choice, CONSOLE)
