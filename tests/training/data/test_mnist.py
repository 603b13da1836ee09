from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.fake_sets import TEST_IMAGES, TRAIN_IMAGES, FakeSets, idx
from training.data.errors import DataCorrupt, DataMissing
from training.data.home import Home
from training.data.mnist import SHA256, load_mnist, read_idx, sources
from training.recipes.digits import INPUTS

assert INPUTS.image is not None
SPEC = INPUTS.image


def test_images_and_labels_are_read_in_order(fake_sets: FakeSets) -> None:
    train = load_mnist(Home(fake_sets.folder), SPEC, fake_sets.data.images, part="train")
    test = load_mnist(Home(fake_sets.folder), SPEC, fake_sets.data.images, part="t10k")
    assert train.images.pixels.shape == (TRAIN_IMAGES, 28, 28, 1)
    assert test.images.pixels.shape == (TEST_IMAGES, 28, 28, 1)
    assert test.labels.tolist() == [row % 10 for row in range(TEST_IMAGES)]
    raw = read_idx(fake_sets.folder / "mnist/t10k-images-idx3-ubyte.gz", dimensions=3)
    np.testing.assert_array_equal(
        test.images.pixels[..., 0], raw
    )  # 28 x 28 needs no resize, so nothing may change


def test_a_file_with_another_checksum_is_refused(fake_sets: FakeSets) -> None:
    name = "t10k-labels-idx1-ubyte.gz"
    wrong = {**fake_sets.data.images, name: replace(fake_sets.data.images[name], sha256="0" * 64)}
    with pytest.raises(DataCorrupt, match=name):
        load_mnist(Home(fake_sets.folder), SPEC, wrong, part="t10k")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"train-images-idx3-ubyte\.gz is not in"):
        load_mnist(Home(tmp_path), SPEC, sources(), part="train")


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        idx(np.zeros((3, 28, 28), np.uint8))[:-30],
        idx(np.zeros(3, np.uint8)),
        gzip.compress(bytes((0, 0, 8, 3)) + bytes(12) + b"extra", mtime=0),
    ],
    ids=["not gzip", "cut", "labels for images", "longer than its header says"],
)
def test_broken_idx_files_are_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(body)
    with pytest.raises(DataCorrupt, match=r"images\.gz"):
        read_idx(path, dimensions=3)


def test_the_published_files_are_pinned() -> None:
    for name, source in sources().items():
        assert source.sha256 == SHA256[name]
        assert all(url.startswith("https://") and url.endswith(name) for url in source.mirrors)


def test_held_out_images_are_spread_over_the_set_and_keep_their_stretch(fake_sets: FakeSets) -> None:
    whole = load_mnist(Home(fake_sets.folder), SPEC, fake_sets.data.images, part="train")
    rest, held_out = whole.split(held_out=40)
    assert (len(rest.labels), len(held_out.labels)) == (TRAIN_IMAGES - 40, 40)
    both = np.concatenate([rest.images.pixels, held_out.images.pixels]).reshape(TRAIN_IMAGES, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, whole.images.pixels.reshape(TRAIN_IMAGES, -1)))
    assert held_out.groups.tolist() == sorted(held_out.groups.tolist())
    assert set(held_out.groups.tolist()) == {0, 1}
