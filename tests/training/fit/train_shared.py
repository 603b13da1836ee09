"""The tiny recipe without chance, in one process or in several: `torchrun … OUT` or `python … OUT`.

Rank 0 leaves weights, losses and validation. With `towers` the first epoch is of towers alone, and OGM is on;
with `cut` every process ends without a word after step 8.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save_file

from tests.training.fake_sets import fake_data, tiny_recipe
from training.data.cache import Cache
from training.data.home import Home
from training.encoders.specs import MelAudio
from training.fit.distributed import joined_world
from training.fit.loop import Report, Step
from training.progress import silent
from training.recipe import Augmentation, Recipe
from training.run import Where, train


def without_chance(recipe: Recipe) -> Recipe:
    """What each process would draw for its own rows is left out; which modalities rows lose is not.

    The rate is low: Adam divides a gradient by its own size, so that where it is nearly nothing the rounding
    of sums moves a weight by as much as the rate. At the recipe's 4e-3 one bias strays by 4e-4 in 20 steps.
    """
    audio = recipe.encoders["audio"]
    assert isinstance(audio, MelAudio)
    return replace(
        recipe,
        encoders={**recipe.encoders, "audio": replace(audio, mask_bands=0, mask_frames=0)},
        fusion=replace(recipe.fusion, dropout=0.0),
        augmentation=Augmentation(),
        schedule=replace(recipe.schedule, epochs=4, batch_size=29, learning_rate=5e-5, patience=9),
    )


@contextmanager
def cut_short(_: str) -> Iterator[Report]:
    def report(step: Step) -> None:
        if step.done == 8:
            os._exit(9)

    yield report


def main(sets: Path, out: Path, how: str) -> None:
    recipe = without_chance(tiny_recipe(fake_data(sets)))
    if how == "towers":
        recipe = replace(
            recipe, schedule=replace(recipe.schedule, tower_epochs=1, modulation=0.5, average=0.9, epochs=2)
        )
    with joined_world() as world:
        with world.first_ahead():
            dataset = recipe.load(Home(sets), Cache(sets / "cache"))
        where = Where(world=world, state_folder=out / "state", save_every_s=0)
        stage = cut_short if how == "cut" else silent
        trained = train(recipe, dataset, seed=2, stage=stage, where=where)
    if world.is_first:
        history = trained.history
        facts = {"world": world.size, **asdict(history)}
        save_file(trained.model.state_dict(), out / "weights.safetensors")
        (out / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
