"""A search goes on from its file, prunes what is worse, and gives the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from training.data.dataset import Dataset
from training.fit.loop import Diverged
from training.progress import silent
from training.recipe import Recipe
from training.run import Watch, train
from training.search import search


def test_a_search_goes_on_and_gives_the_best_of_all_trials(recipe: Recipe, tmp_path: Path) -> None:
    seen: list[Recipe] = []

    def objective(tried: Recipe, watch: Watch) -> float:
        seen.append(tried)
        loss = abs(tried.schedule.drop_modality - 0.3)
        for epoch in range(1, 4):
            watch(epoch, loss + 1 / epoch)
        return loss

    first = search(recipe, objective, tmp_path, trials=8, seed=0, provenance={})
    assert first.trials == len(seen) == 8
    again = search(recipe, objective, tmp_path, trials=8, seed=1, provenance={})
    assert again.trials == len(seen) == 16
    assert again.loss <= first.loss
    assert again.pruned > 0
    assert again.loss == min(abs(tried.schedule.drop_modality - 0.3) for tried in seen)
    assert set(again.best) == {
        "learning_rate", "weight_decay", "drop_modality", "auxiliary_weight", "fusion", "width",
    }  # fmt: skip
    assert {tried.fusion.width for tried in seen} <= {4, 8, 16}


def test_a_trial_trains_the_recipe_as_it_was_suggested(
    recipe: Recipe, dataset: Dataset, tmp_path: Path
) -> None:
    short = replace(recipe, schedule=replace(recipe.schedule, epochs=1), strangers=None)
    epochs: list[int] = []

    def objective(tried: Recipe, watch: Watch) -> float:
        def noting(epoch: int, loss: float) -> None:
            epochs.append(epoch)
            watch(epoch, loss)

        return train(tried, dataset, seed=0, stage=silent, watch=noting).validation_nll

    found = search(short, objective, tmp_path, trials=2, seed=0, provenance={})
    assert epochs == [1, 1]
    assert 0 < found.loss < 10


def test_the_same_seed_again_tries_something_else(recipe: Recipe, tmp_path: Path) -> None:
    tried: list[float] = []

    def objective(one: Recipe, _: Watch) -> float:
        tried.append(one.schedule.drop_modality)
        return 1.0

    for _ in range(2):
        search(recipe, objective, tmp_path, trials=3, seed=0, provenance={})
    assert len(set(tried)) == 6


@pytest.mark.parametrize("change", ["epochs", "data"])
def test_trials_of_other_epochs_or_other_data_are_not_counted(
    recipe: Recipe, tmp_path: Path, change: str
) -> None:
    search(recipe, lambda _, __: 0.5, tmp_path, trials=2, seed=0, provenance={"rows": 1})
    longer = replace(recipe, schedule=replace(recipe.schedule, epochs=9))
    one, rows = (longer, 1) if change == "epochs" else (recipe, 2)
    found = search(one, lambda _, __: 0.7, tmp_path, trials=1, seed=0, provenance={"rows": rows})
    assert (found.trials, found.loss) == (1, 0.7)


def test_a_trial_that_diverges_is_pruned(recipe: Recipe, tmp_path: Path) -> None:
    losses = iter([None, 0.5, None])

    def objective(_: Recipe, __: Watch) -> float:
        loss = next(losses)
        if loss is None:
            raise Diverged("no number")
        return loss

    with pytest.raises(Diverged, match="None of 1 trials ended with a loss"):
        search(recipe, objective, tmp_path, trials=1, seed=0, provenance={})
    found = search(recipe, objective, tmp_path, trials=2, seed=0, provenance={})
    assert (found.trials, found.pruned, found.loss) == (3, 2, 0.5)
