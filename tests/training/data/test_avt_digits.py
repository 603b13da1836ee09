from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.data.public_sets import avt_digits_set
from tests.training.fake_sets import CLIPS_PER_DIGIT, TEST_IMAGES, TRAIN_IMAGES, VALIDATION_IMAGES, FakeSets
from training.data.avt_digits import AvtDigits, load_avt_digits, read_words
from training.data.dataset import Dataset, PairedByClass, Split
from training.data.errors import DataCorrupt, DataMissing
from training.data.home import Home
from training.recipes.digits import INPUTS

NAMES = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data(fake_sets: FakeSets) -> AvtDigits:
    return avt_digits_set(fake_sets.folder, fake_sets)


@pytest.fixture(scope="module")
def dataset(fake_sets: FakeSets, data: AvtDigits) -> Dataset:
    return load_avt_digits(Home(fake_sets.folder), INPUTS, data)


def paired(split: Split) -> PairedByClass:
    assert isinstance(split.pairing, PairedByClass)
    return split.pairing


def values(dataset: Dataset, column: str) -> dict[str, set[str]]:
    """Split to what its rows hold, over some epochs."""
    return {
        name: {
            value
            for seed in range(5)
            for value in getattr(dataset, name).pairing.rows(seed).columns[column].tolist()
        }
        for name in NAMES
    }


def are_apart(held: Sequence[set[Any]]) -> bool:
    return len(set().union(*held)) == sum(map(len, held))


def test_every_image_is_in_one_row_and_every_recording_in_several_noises(dataset: Dataset) -> None:
    images = (TRAIN_IMAGES - VALIDATION_IMAGES, VALIDATION_IMAGES, TEST_IMAGES)
    recordings = (20 * (CLIPS_PER_DIGIT - 10) * 3, 20 * 5 * 2, 20 * 5 * 2)
    for name, pictures, sounds in zip(NAMES, images, recordings, strict=True):
        split: Split = getattr(dataset, name)
        assert split.items.count("image") == len(split.pairing.rows(0)) == pictures
        assert split.items.count("audio") == sounds
        labels = {modality: held.labels for modality, held in paired(split).by_modality.items()}
        rows = split.pairing.rows(3)
        for at, modality in enumerate(("image", "text", "audio")):
            np.testing.assert_array_equal(labels[modality][rows.items[:, at]], rows.targets)  # type: ignore[index]


def test_no_noise_language_or_recording_is_in_two_splits(dataset: Dataset) -> None:
    assert values(dataset, "noise") == {
        "train": {"noise 1", "noise 2", "noise 3"}, "validation": {"noise 4"}, "test": {"noise 5"},
    }  # fmt: skip
    languages = dataset.provenance["texts"]["languages"]
    assert {name: len(held) for name, held in languages.items()} == {"train": 7, "validation": 3, "test": 3}
    assert len({language for held in languages.values() for language in held}) == 13
    for column, told in (("language", languages), ("noise", None)):
        held = values(dataset, column)
        assert are_apart(list(held.values()))
        assert told is None or all(held[name] <= set(told[name]) for name in NAMES)
    groups = [set(paired(getattr(dataset, name)).by_modality["audio"].groups.tolist()) for name in NAMES]
    assert are_apart(groups)


def test_related_and_lone_languages_are_dealt_evenly(dataset: Dataset) -> None:
    related = {"ru", "uk", "be", "sr", "hy"}
    for name in ("validation", "test"):
        held = set(dataset.provenance["texts"]["languages"][name])
        assert (len(held & related), len(held)) == (1, 3)


def test_versions_of_one_recording_are_one_group(dataset: Dataset) -> None:
    audio = paired(dataset.test).by_modality["audio"]
    assert np.unique(audio.groups, return_counts=True)[1].tolist() == [2] * 100
    assert dataset.test.items.clips is not None
    first, second = dataset.test.items.clips[0], dataset.test.items.clips[1]
    assert len(first) == len(second)
    assert (first != second).any()


def test_words_of_one_language_are_one_group_and_regions_are_no_languages(
    fake_sets: FakeSets, data: AvtDigits
) -> None:
    words = read_words(Home(fake_sets.folder), data.words)
    assert len(words) == 12 * 10 + 2  # cc and cc_XX say the same; a wrong word is left out
    assert "Drvo" not in {word.text for word in words}
    assert {word.language for word in words} >= {"cc", "dd", "sr"}


def test_pictures_hold_no_more_than_their_components(dataset: Dataset) -> None:
    assert dataset.train.items.images is not None
    pixels = dataset.train.items.images.pixels[..., 0].reshape(TRAIN_IMAGES - VALIDATION_IMAGES, -1)
    strengths = np.linalg.svd(pixels - pixels.mean(axis=0), compute_uv=False)
    assert (strengths**2)[:4].sum() > 0.9 * (strengths**2).sum()  # what is cut to 0..255 leaves the plane


def test_the_same_seed_builds_the_same_set_and_another_does_not(
    fake_sets: FakeSets, data: AvtDigits, dataset: Dataset
) -> None:
    again = load_avt_digits(Home(fake_sets.folder), INPUTS, data)
    other = load_avt_digits(Home(fake_sets.folder), INPUTS, replace(data, seed=1))
    assert again.provenance == dataset.provenance
    assert other.provenance["checksum"] != dataset.provenance["checksum"]


def test_what_no_host_offers_is_named_with_its_origin(tmp_path: Path) -> None:
    here = Home(tmp_path)
    with pytest.raises(DataMissing, match=r"digits_multilingual\.zip is not in .* from github\.com/deepin"):
        read_words(here)


def test_another_edition_is_refused(fake_sets: FakeSets, data: AvtDigits) -> None:
    with pytest.raises(DataCorrupt, match="published is 000"):
        read_words(Home(fake_sets.folder), replace(data.words, sha256="0" * 64))
