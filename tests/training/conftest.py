"""One tiny data set and one tiny trained checkpoint, shared by the tests of this folder."""

from __future__ import annotations

import pytest

from tests.training.fake_sets import FakeSets, tiny_recipe, write_sets
from training.checkpoint import Checkpoint
from training.data.cache import Cache
from training.data.dataset import Dataset
from training.data.home import Home
from training.evaluate import Evaluation, evaluate
from training.progress import silent
from training.recipe import Recipe
from training.run import train


@pytest.fixture(scope="session")
def fake_sets(tmp_path_factory: pytest.TempPathFactory) -> FakeSets:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="session")
def recipe(fake_sets: FakeSets) -> Recipe:
    return tiny_recipe(fake_sets.data)


@pytest.fixture(scope="session")
def dataset(recipe: Recipe, fake_sets: FakeSets) -> Dataset:
    return recipe.load(Home(fake_sets.folder), Cache(fake_sets.folder / "cache"))


@pytest.fixture(scope="session")
def measured(recipe: Recipe, dataset: Dataset) -> tuple[Checkpoint, Evaluation]:
    trained = train(recipe, dataset, seed=3, stage=silent)
    return evaluate(trained, recipe, dataset, seed=3, stage=silent)


@pytest.fixture(scope="session")
def checkpoint(measured: tuple[Checkpoint, Evaluation]) -> Checkpoint:
    return measured[0]
