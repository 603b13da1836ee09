from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.data.media import INPUTS
from tests.training.data.public_sets import picturewords_set
from training.data.cache import Cache
from training.data.dataset import ABSENT, Dataset
from training.data.errors import DataCorrupt, DataMissing
from training.data.home import Home
from training.data.picturewords import (
    LABELS,
    PictureWords,
    extra_texts,
    load_picturewords,
    read_index,
    sources,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@pytest.fixture(scope="module")
def data(folder: Path) -> PictureWords:
    return picturewords_set(folder)


@pytest.fixture(scope="module")
def dataset(folder: Path, data: PictureWords) -> Dataset:
    return load_picturewords(Home(folder), INPUTS, Cache(folder / "cache"), data)


def test_labels_are_sorted() -> None:
    assert list(LABELS) == sorted(LABELS)
    assert len(LABELS) == 10


def test_rows_with_a_label_that_are_no_letters_in_their_own_splits(dataset: Dataset) -> None:
    rows = {name: getattr(dataset, name).pairing.rows(0) for name in ("train", "validation", "test")}
    told = {name: [LABELS[target] for target in held.targets] for name, held in rows.items()}
    assert told == {"train": ["animal", "animal", "food"], "validation": ["animal"], "test": ["food"]}
    assert rows["train"].items.tolist() == [[0, 0, 0], [0, 1, 1], [1, 2, 2]]
    assert rows["train"].columns["lang"].tolist() == ["en", "fr", "en"]
    assert rows["train"].columns["speaker"].tolist() == ["voice-en", "voice-fr", "voice-en"]
    assert set(rows["train"].columns) == {"source", "lang", "speaker", "category", "item"}
    assert dataset.train.items.texts is not None
    assert dataset.train.items.texts.strings == ("A dog.", "Un chien.", "cake")


def test_a_concept_is_one_group_in_all_modalities(dataset: Dataset) -> None:
    train = dataset.train.pairing.rows(0).groups
    assert (train[0] == train[1]).all()
    assert (train[0] != train[2]).all()
    rest = [split.pairing.rows(0).groups[0] for split in (dataset.validation, dataset.test)]
    assert not any((train == group).any() for group in rest)


def test_all_training_rows_bring_those_without_a_class(folder: Path, data: PictureWords) -> None:
    made = replace(data, all_training_rows=True)
    every = load_picturewords(Home(folder), INPUTS, Cache(folder / "cache"), made)
    assert every.train.pairing.rows(0).targets.tolist() == [1, 1, 4, ABSENT, ABSENT]
    assert every.train.items.counts == {"image": 4, "text": 5, "audio": 5}
    assert [len(split.pairing.rows(0)) for split in (every.validation, every.test)] == [1, 1]


def test_extra_texts_are_of_training_pictures_and_say_nothing_that_is_measured(
    folder: Path, data: PictureWords
) -> None:
    extra = extra_texts(Home(folder), data)
    assert extra.texts.strings == ("A dog.", "Ein Hund.", "cake", "gâteau", "kaka", "Stern")
    assert extra.languages.tolist() == ["en", "de", "en", "fr", "sv", "de"]
    assert extra.items.tolist() == ["abc/dog", "abc/dog", "abc/cake", "abc/cake", "abc/cake", "abc/star"]
    assert extra.labels.tolist() == [1, 1, 4, 4, 4, ABSENT]


def test_other_names_are_rows_of_text_alone_in_the_languages_that_are_spoken(
    folder: Path, data: PictureWords, dataset: Dataset
) -> None:
    """Of the labelled training pictures, each as the picture's concept; what a row says is not said twice."""
    made = replace(data, other_names=True)
    named = load_picturewords(Home(folder), INPUTS, Cache(folder / "cache"), made)
    rows, before = named.train.pairing.rows(0), dataset.train.pairing.rows(0)
    assert named.train.items.texts is not None
    assert named.train.items.texts.strings == ("A dog.", "Un chien.", "cake", "gâteau")
    assert rows.items[:-1].tolist() == before.items.tolist()
    assert rows.items[-1].tolist() == [ABSENT, 3, ABSENT]
    assert rows.targets[-1] == LABELS.index("food")
    assert rows.groups[-1, 1] == rows.groups[2, 1]
    for name in ("validation", "test"):
        again, split = (getattr(one, name).pairing.rows(0) for one in (named, dataset))
        assert again.items.tolist() == split.items.tolist()
    assert named.provenance["other_names"] == 1


def test_a_second_load_is_the_same_and_decodes_nothing(
    folder: Path, data: PictureWords, dataset: Dataset
) -> None:
    told: list[str] = []

    def advance(modality: str, *, done: int, total: int) -> None:
        told.append(f"{modality} {done} of {total}")

    again = load_picturewords(Home(folder), INPUTS, Cache(folder / "cache", advance), data)
    assert again.provenance == dataset.provenance
    assert told == []


def test_a_missing_archive_is_named_with_its_origin(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"index\.jsonl\.gz is not in .* from the three archives"):
        read_index(Home(tmp_path), sources())


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"no json", mtime=0)])
def test_a_broken_index_is_refused(tmp_path: Path, data: PictureWords, body: bytes) -> None:
    (tmp_path / "picturewords").mkdir()
    (tmp_path / "picturewords" / "index.jsonl.gz").write_bytes(body)
    with pytest.raises(DataCorrupt, match="of no known edition"):
        read_index(Home(tmp_path), data.files)
    unchecked = {name: replace(source, check=None) for name, source in data.files.items()}
    with pytest.raises(DataCorrupt, match="not a complete list"):
        read_index(Home(tmp_path), unchecked)
