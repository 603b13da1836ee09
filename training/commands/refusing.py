"""What is wrong, in one sentence, and the exit code that goes with it; a traceback would help nobody here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer
from rich.console import Console
from rich.markup import escape

from app.bundle.errors import BundleError
from app.runtime.errors import RuntimeFault
from training.checkpoint import CheckpointInvalid
from training.data.errors import DataError
from training.encoders.contract import EncoderUnfit
from training.export.graphs import GraphFrozen
from training.export.parity import ParityBroken
from training.fit.loop import Diverged
from training.recipes.wanted import RecipeUnfit

_FAULTS: Final = (
    DataError, CheckpointInvalid, EncoderUnfit, Diverged, ParityBroken, GraphFrozen, RuntimeFault,
    BundleError, OSError,
)  # fmt: skip


@contextmanager
def refusing() -> Iterator[None]:
    """Raises BadParameter (2) where a recipe cannot be made as asked, Exit (1) for what the world did."""
    try:
        yield
    except RecipeUnfit as error:
        raise typer.BadParameter(str(error)) from error
    except _FAULTS as error:
        complain(error)
        raise typer.Exit(1) from error


def complain(error: Exception) -> None:
    """On standard error."""
    told = escape(str(error))  # a path may hold what looks like markup
    Console(stderr=True).print(f"[red]error:[/red] {told}", highlight=False, soft_wrap=True)
