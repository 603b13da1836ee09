"""A search goes on from its file, prunes what is worse, and gives the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.data.dataset import Dataset
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

    first = search(recipe, objective, tmp_path, trials=8, seed=0)
    assert first.trials == len(seen) == 8
    again = search(recipe, objective, tmp_path, trials=8, seed=1)
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

    found = search(short, objective, tmp_path, trials=2, seed=0)
    assert epochs == [1, 1]
    assert 0 < found.loss < 10
