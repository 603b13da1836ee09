"""`variant`: a smaller bundle, if it is as good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from training.checkpoint import load_checkpoint
from training.commands.options import CacheFolder, Data, Out, RecipeName, Version
from training.commands.publishing import CONSOLE, load_rows
from training.commands.refusing import complain, refusing
from training.export.variants import GatesFailed, Smaller, make_variant, origin_of
from training.recipes.wanted import load_wanted
from training.report import print_gates


def variant(
    name: RecipeName,
    out: Out,
    precision: Annotated[Smaller, typer.Option(help="int8 for CPUs, float16 for GPUs.")] = "int8",
    data: Data = None,
    cache: CacheFolder = Path("data"),
    version: Version = 1,
    untimed: Annotated[  # noqa: FBT002 - a switch on the command line
        bool, typer.Option("--untimed", help="Publish even where its speed cannot be measured.")
    ] = False,
) -> None:
    """Publish a smaller, faster bundle made from OUT's own, as NAME-int8 or NAME-float16.

    It must pass every gate against the float32 bundle: accuracy, same answers, calibration, size and time. If
    one fails nothing is published, it is named with its number, and the exit code is 3.
    """
    with refusing():
        recipe = load_wanted(out, name).make()
        dataset = load_rows(recipe, data, cache)
        origin = origin_of(out, load_checkpoint(out, recipe), recipe, number=version)
        try:
            made = make_variant(origin, dataset, out, precision=precision, is_untimed_allowed=untimed)
        except GatesFailed as failure:
            print_gates(failure.verdict.as_json(), CONSOLE)
            complain(failure)
            raise typer.Exit(3) from failure
    print_gates(made.verdict.as_json(), CONSOLE)
    folder, size_mb = escape(str(made.published.folder)), made.published.size_bytes / 1e6
    CONSOLE.print(f"Published {folder} ({size_mb:.2f} MB).", soft_wrap=True)
