from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.data.media import IMAGE
from tests.training.data.public_sets import article_set
from tests.training.fake_sets import FakeSets
from training.data.article import LABELS, Article, load_article
from training.data.dataset import Dataset, PairedByClass, Split
from training.data.home import Home
from training.recipes.digits import INPUTS

READ = INPUTS.model_copy(
    update={
        "image": IMAGE,
        "text": INPUTS.text.model_copy(update={"max_characters": 60}) if INPUTS.text else None,
    }
)


@pytest.fixture(scope="module")
def data(fake_sets: FakeSets) -> Article:
    return article_set(fake_sets.folder, fake_sets)


@pytest.fixture(scope="module")
def dataset(fake_sets: FakeSets, data: Article) -> Dataset:
    return load_article(Home(fake_sets.folder), READ, data)


def labels(split: Split) -> dict[str, list[int]]:
    """Modality to items of each class."""
    assert isinstance(split.pairing, PairedByClass)
    return {
        name: np.bincount(held.labels, minlength=10).tolist()
        for name, held in split.pairing.by_modality.items()
    }


def test_classes_are_paired_by_number() -> None:
    assert LABELS[0] == "airplane/earn/0"
    assert LABELS[9] == "truck/coffee/9"


def test_validation_is_a_share_of_each_class(dataset: Dataset) -> None:
    assert labels(dataset.train) == {"image": [3] * 10, "text": [4] * 10, "audio": [4] * 10}
    assert labels(dataset.validation) == {"image": [1] * 10, "text": [2] * 10, "audio": [10] * 10}
    assert labels(dataset.test) == {"image": [2] * 10, "text": [2] * 10, "audio": [10] * 10}


def test_no_item_is_in_two_splits(dataset: Dataset) -> None:
    """Also not the article that was sent again: its training copy is left out."""
    splits = (dataset.train, dataset.validation, dataset.test)
    strings = [set(split.items.texts.strings) for split in splits if split.items.texts is not None]
    pixels = [
        {picture.tobytes() for picture in split.items.images.pixels}
        for split in splits
        if split.items.images is not None
    ]
    for held in (strings, pixels):
        assert len(held) == 3
        assert len(set.union(*held)) == sum(map(len, held))


def test_an_article_is_cut_to_what_serving_accepts(dataset: Dataset) -> None:
    assert dataset.test.items.texts is not None
    assert {len(text) for text in dataset.test.items.texts.strings} == {60}


def test_the_cut_follows_the_seed(fake_sets: FakeSets, data: Article, dataset: Dataset) -> None:
    again, other = (load_article(Home(fake_sets.folder), READ, replace(data, seed=s)) for s in (data.seed, 5))
    assert again.provenance == dataset.provenance
    assert other.provenance["checksum"] != dataset.provenance["checksum"]
    assert dataset.provenance["texts"]["licence"] == "research purposes only"
