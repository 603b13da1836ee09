"""The two ends of most verbs: a recipe's rows, and the bundle of what was trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from training.checkpoint import load_checkpoint
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.export.bundle import bundle_folder, publish
from training.export.graphs import export_graphs
from training.progress import decoding, downloads
from training.recipe import Recipe

CONSOLE: Final = Console()


def load_rows(recipe: Recipe, data: Path | None, cache: Path, console: Console = CONSOLE) -> Dataset:
    with downloads(console) as fetched, decoding(console) as decoded:
        home = Home(data) if data is not None else Home(cache, downloads=fetched)
        return recipe.load(home, Cache(cache / "decoded", advance=decoded))


def publish_checkpoint(recipe: Recipe, dataset: Dataset, out: Path, *, version: int) -> None:
    """From the files and not from memory, so that `export` later gives the same."""
    checkpoint, destination = load_checkpoint(out, recipe), bundle_folder(out, recipe, number=version)
    with CONSOLE.status("export"):
        graphs = export_graphs(checkpoint.model, recipe.inputs)
        published = publish(checkpoint, recipe, graphs, dataset.test, destination, number=version)
    parity, folder = published.parity, escape(str(destination))
    CONSOLE.print(
        f"Published {folder} ({published.size_bytes / 1e6:.1f} MB). Largest difference from torch on "
        f"{parity.rows} rows and every subset: {parity.split_difference:.1e} split, "
        f"{parity.fused_difference:.1e} fused; {parity.flips} labels differ.",
        soft_wrap=True,
    )
