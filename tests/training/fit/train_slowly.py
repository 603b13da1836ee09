"""A process of its own that trains the tiny recipe, saving after every step, to be killed by a test."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from tests.training.fake_sets import fake_data, tiny_recipe
from training.data.cache import Cache
from training.data.home import Home
from training.progress import silent
from training.run import Where, train


def main(sets: Path, out: Path) -> None:
    recipe = tiny_recipe(fake_data(sets))
    recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=3, average=0.95))
    dataset = recipe.load(Home(sets), Cache(sets / "cache"))
    trained = train(
        recipe, dataset, seed=2, stage=silent, where=Where(state_folder=out / "state", save_every_s=0)
    )
    aside = out / "weights.aside"
    save_file(trained.model.state_dict(), aside)
    aside.rename(out / "weights.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
