from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from app.bundle.manifest import MODALITIES
from training.data.dataset import Dataset, Split
from training.data.xor import ATTAINABLE, LABELS, Xor, label_of, load_xor
from training.recipes.digits import INPUTS

BITS = np.array(list(product((0, 1), repeat=3)))
SMALL = Xor(train=64, validation=16, test=32)
BIRDS = ("robin", "heron", "finch", "raven", "stork", "eagle", "swallow", "magpie")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_xor(INPUTS, SMALL)


@pytest.mark.parametrize("subset", ATTAINABLE)
def test_what_can_be_attained_is_as_stated(subset: str) -> None:
    """By counting: the most frequent class for each thing that may be seen."""
    seen = BITS[:, [MODALITIES.index(name) for name in MODALITIES if name in subset.split("+")]]
    labels = label_of(BITS)
    hits = sum(np.bincount(labels[(seen == sight).all(axis=1)]).max() for sight in np.unique(seen, axis=0))
    assert hits / len(BITS) == ATTAINABLE[subset]


def test_each_input_leaves_every_class_as_likely_so_their_product_does() -> None:
    for bits in BITS.T:
        for value in (0, 1):
            assert np.bincount(label_of(BITS)[bits == value], minlength=len(LABELS)).tolist() == [1] * 4


def test_classes_are_as_frequent_in_every_split(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.test):
        rows = split.pairing.rows(0)
        assert np.bincount(rows.targets.astype(int)).tolist() == [len(rows) // 4] * 4


def test_rows_mean_what_they_show(dataset: Dataset) -> None:
    """The bits are read back: words from the text, pitch from the recording, strokes from the picture."""
    rows = dataset.train.pairing.rows(0)
    bits = np.stack(
        [_strokes(dataset.train), _family(dataset.train)[rows.items[:, 1]], _pitch(dataset.train)]
    )
    np.testing.assert_array_equal(label_of(bits.T), rows.targets)


def _strokes(split: Split) -> np.ndarray:
    """A cross is bright where its strokes meet, a ring is dark there."""
    assert split.items.images is not None
    bits = []
    for picture in split.items.images.pixels[..., 0].astype(int):
        bright = np.argwhere(picture > 140)
        middle = np.rint((bright.min(axis=0) + bright.max(axis=0)) / 2).astype(int)
        bits.append(int(picture[middle[0] - 1 : middle[0] + 2, middle[1] - 1 : middle[1] + 2].max() > 140))
    return np.array(bits)


def _family(split: Split) -> np.ndarray:
    assert split.items.texts is not None
    return np.array(
        [int(not any(bird in text.lower() for bird in BIRDS)) for text in split.items.texts.strings]
    )


def _pitch(split: Split) -> np.ndarray:
    clips = split.items.clips
    assert clips is not None
    hertz = [
        np.abs(np.fft.rfft(clips[item])).argmax() * 8_000 / len(clips[item]) for item in range(len(clips))
    ]
    return (np.array(hertz) > 600).astype(int)


def test_a_set_is_drawn_from_its_seed(dataset: Dataset) -> None:
    assert load_xor(INPUTS, SMALL).provenance == dataset.provenance
    other = load_xor(INPUTS, Xor(train=64, validation=16, test=32, seed=2))
    assert other.provenance["checksum"] != dataset.provenance["checksum"]
    pictures = [split.items.images for split in (dataset.train, dataset.validation, dataset.test)]
    drawn = [picture.tobytes() for held in pictures if held is not None for picture in held.pixels]
    assert len(set(drawn)) == len(drawn) == 112
