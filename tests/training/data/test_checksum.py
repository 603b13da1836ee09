from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data.checksum import checksum, with_checksum
from training.data.dataset import Dataset, FixedRows, PairedByClass, Rows, Split
from training.data.items import Clips, Images, Items, Labelled, Texts


def fixed() -> Split:
    rows = Rows(
        items=np.array([[0, 0, 0], [1, -1, 1]]),
        targets=np.array([0, 1]),
        groups=np.array([[0, 0, 0], [1, -1, 1]]),
        columns={"lang": np.array(["en", "de"])},
    )
    return Split(items=items(), pairing=FixedRows(rows))


def items() -> Items:
    return Items(
        images=Images(np.arange(2 * 4, dtype=np.uint8).reshape(2, 2, 2, 1)),
        texts=Texts(("a", "bc")),
        clips=Clips.of([np.zeros(3, np.float32), np.ones(2, np.float32)]),
    )


def paired() -> Split:
    held = Labelled(labels=np.array([0, 1]), groups=np.array([0, 1]), columns={"who": np.array(["x", "y"])})
    return Split(items=items(), pairing=PairedByClass({"image": held, "text": held, "audio": held}))


def dataset(test: Split) -> Dataset:
    return Dataset(train=fixed(), validation=paired(), test=test, provenance={"name": "some"})


def _of_items(**changes: object) -> Callable[[Split], Split]:
    return lambda split: replace(split, items=replace(split.items, **changes))  # type: ignore[arg-type]


def _of_rows(**changes: object) -> Callable[[Split], Split]:
    def change(split: Split) -> Split:
        assert isinstance(split.pairing, FixedRows)
        return replace(split, pairing=FixedRows(replace(split.pairing.fixed, **changes)))  # type: ignore[arg-type]

    return change


@pytest.mark.parametrize(
    "change",
    [
        _of_items(images=Images(np.arange(2 * 4, dtype=np.uint8).reshape(2, 4, 1, 1))),
        _of_items(images=None),
        _of_items(texts=Texts(("ab", "c"))),
        _of_items(texts=Texts(("a", "bd"))),
        _of_items(clips=Clips.of([np.zeros(2, np.float32), np.array([0, 1, 1], np.float32)])),
        _of_rows(targets=np.array([1, 1])),
        _of_rows(groups=np.zeros((2, 3), np.int64)),
        _of_rows(columns={"lang": np.array(["en", "fr"])}),
        _of_rows(columns={"langs": np.array(["en", "de"])}),
        lambda _: paired(),
    ],
)
def test_any_change_is_another_checksum(change: Callable[[Split], Split]) -> None:
    assert checksum(dataset(change(fixed()))) != checksum(dataset(fixed()))


def test_memory_or_file_and_the_machine_make_no_difference(tmp_path: Path) -> None:
    split = fixed()
    assert split.items.images is not None
    np.save(tmp_path / "pixels.npy", split.items.images.pixels)
    mapped = Images(np.load(tmp_path / "pixels.npy", mmap_mode="r"))
    big_endian = np.array([0, 1], ">i8")
    changed = _of_rows(targets=big_endian)(_of_items(images=mapped)(split))
    assert checksum(dataset(changed)) == checksum(dataset(split))


def test_it_is_kept_in_the_provenance() -> None:
    made = dataset(fixed())
    assert with_checksum(made).provenance == {"name": "some", "checksum": checksum(made)}
