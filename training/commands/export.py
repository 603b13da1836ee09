"""`export`: the checkpoint of an earlier run as a bundle again."""

from __future__ import annotations

from pathlib import Path

from training.commands.options import CacheFolder, Data, Out, RecipeName, Version
from training.commands.publishing import load_rows, publish_checkpoint
from training.commands.refusing import refusing
from training.recipes.wanted import load_wanted


def export(
    name: RecipeName,
    out: Out,
    data: Data = None,
    cache: CacheFolder = Path("data"),
    version: Version = 1,
) -> None:
    """Publish OUT's checkpoint as a bundle again, as it was trained, verified against real rows."""
    with refusing():
        recipe = load_wanted(out, name).make()
        publish_checkpoint(recipe, load_rows(recipe, data, cache), out, version=version)
