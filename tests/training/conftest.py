"""One tiny data set and one tiny trained checkpoint, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from training.data.corpus import Corpus

from tests.training.fake_sets import FakeSets, tiny_recipe, write_sets
from training.checkpoint import Checkpoint
from training.data.home import Home
from training.fit import Report
from training.recipe import Recipe
from training.run import train


@pytest.fixture(scope="session")
def fake_sets(tmp_path_factory: pytest.TempPathFactory) -> FakeSets:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="session")
def recipe(fake_sets: FakeSets) -> Recipe:
    return tiny_recipe(fake_sets.data)


@pytest.fixture(scope="session")
def corpus(recipe: Recipe, fake_sets: FakeSets) -> Corpus:
    return recipe.load(Home(fake_sets.folder))


@pytest.fixture(scope="session")
def checkpoint(recipe: Recipe, corpus: Corpus) -> Checkpoint:
    return train(recipe, corpus, seed=3, stage=silent)


@contextmanager
def silent(_: str) -> Iterator[Report]:
    """A stage that shows nothing."""
    yield lambda _: None
