"""python -m training train|export|… RECIPE --out OUT: the only place where a training process starts."""

from __future__ import annotations

import typer

from training.commands.check import check
from training.commands.choose import choose
from training.commands.export import export
from training.commands.train import train
from training.commands.tune import tune
from training.commands.variant import variant

app = typer.Typer(
    help="Train, measure, export and verify.", no_args_is_help=True, pretty_exceptions_enable=False
)
for verb in (train, export, choose, variant, check, tune):
    app.command()(verb)


if __name__ == "__main__":
    app()
