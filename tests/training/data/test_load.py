from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bundle.decode import decode_audio, decode_image
from app.bundle.prepare import prepare_audio, prepare_image
from tests.training.data.media import AUDIO, IMAGE, INPUTS, png, sound
from tests.training.data.test_manifest import write
from training.data.cache import Cache
from training.data.dataset import ABSENT
from training.data.errors import ManifestUnfit
from training.data.load import load_manifest


def rows() -> list[dict[str, Any]]:
    """Bytes in the table itself; `a` and `b` share a picture, `c` and `d` lack something."""
    columns = ("id", "image", "text", "audio", "label", "split", "group", "lang")
    table: list[tuple[Any, ...]] = [
        ("a", png(1), "one", sound(1), "x", "train", "g", "en"),
        ("b", png(1), "two", sound(2), "y", "train", "g", "de"),
        ("c", None, "two", sound(3), "y", "train", None, None),
        ("d", png(2), None, None, "x", "validation", None, "en"),
        ("e", png(3), "two", sound(4), "y", "test", "h", "en"),
    ]
    return [dict(zip(columns, cells, strict=True)) for cells in table]


def test_rows_name_the_items_that_the_manifest_names(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", rows())
    dataset = load_manifest(path, INPUTS, None, Cache(tmp_path / "cache"))
    train = dataset.train.pairing.rows(0)
    assert train.items.tolist() == [[0, 0, 0], [0, 1, 1], [ABSENT, 1, 2]]
    assert train.targets.tolist() == [0, 1, 1]
    assert train.columns["lang"].tolist() == ["en", "de", ""]
    items = dataset.train.items
    assert items.counts == {"image": 1, "text": 2, "audio": 3}
    assert items.texts is not None
    assert items.texts.strings == ("one", "two")
    for split, number in ((dataset.train, 1), (dataset.validation, 2), (dataset.test, 3)):
        assert split.items.images is not None
        [pixels] = split.items.images.pixels
        np.testing.assert_array_equal(pixels, prepare_image(decode_image(png(number), IMAGE), IMAGE))
    assert dataset.validation.items.counts == {"image": 1, "text": 0, "audio": 0}
    assert dataset.validation.pairing.rows(0).present.tolist() == [[True, False, False]]
    assert dataset.test.items.clips is not None
    assert len(dataset.test.items.clips[0]) == 800


def test_groups_are_those_that_are_written_and_else_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", rows())
    dataset = load_manifest(path, INPUTS, ("x", "y"), Cache(tmp_path / "cache"))
    splits = (dataset.train, dataset.validation, dataset.test)
    a, b, c, d, e = (list(row) for split in splits for row in split.pairing.rows(0).groups)
    assert a == b
    assert c[0] == d[1] == d[2] == ABSENT
    assert len({a[0], d[0], e[0]}) == 3
    assert len({a[1], c[1], e[1]}) == 3  # the word is in two rows, but one says that its group is another


def test_several_labels_become_columns_of_0_and_1(tmp_path: Path) -> None:
    table = [
        {"id": str(at), "text": f"word {at}", "label": label, "split": split}
        for at, (label, split) in enumerate(
            [("b;a", "train"), ("c", "train"), ("a", "validation"), ("c", "test")]
        )
    ]
    path = write(tmp_path / "rows.csv", table)
    dataset = load_manifest(path, INPUTS, None, Cache(tmp_path / "cache"), task="multilabel")
    targets = dataset.train.pairing.rows(0).targets
    assert targets.dtype == np.float32
    assert targets.tolist() == [[1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (2, {"audio": b"RIFF"}, "undecodable: audio: .* .row c."),
        (1, {"text": " "}, "undecodable: text: .* .row b."),
        (4, {"image": png(1)}, "in two splits: the same image"),
        (4, {"group": "g"}, "group in two splits: group 'g'"),
        (3, {"label": "z"}, "unknown label: 'z'"),
        (3, {"label": None}, "no label"),
        (3, {"split": "dev"}, "unknown split"),
        (3, {"split": "train"}, "empty split: no row has the split 'validation'"),
        (3, {"image": None}, "no modality"),
        (3, {"id": "a"}, "duplicate id"),
    ],
)
def test_rows_that_would_mislead_are_refused(
    tmp_path: Path, row: int, changes: dict[str, object], message: str
) -> None:
    table = rows()
    table[row] |= changes
    with pytest.raises(ManifestUnfit, match=message):
        load_manifest(write(tmp_path / "rows.parquet", table), INPUTS, None, Cache(tmp_path / "cache"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    table = [{"id": "a", "image": "gone.png", "label": "x", "split": "train"}]
    with pytest.raises(ManifestUnfit, match=r"missing file: image: .*gone\.png is not there .row a."):
        load_manifest(write(tmp_path / "rows.csv", table), INPUTS, None, Cache(tmp_path / "cache"))


PARTS = st.tuples(st.sampled_from(["train", "validation", "test"]), st.booleans(), st.integers(0, 3))


@settings(max_examples=30)
@given(drawn=st.lists(PARTS, max_size=12))
def test_every_row_names_its_own_inputs_and_lacks_what_it_lacked(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, bool, int]]
) -> None:
    """A row has a recording, a text that others may share, or both; every split has one row at least."""
    folder = tmp_path_factory.mktemp("rows")
    table = [
        {
            "id": str(at),
            "text": f"word {word}" if word else None,
            "audio": sound(at) if heard or not word else None,
            "label": f"{at % 2}",
            "split": split,
        }
        for at, (split, heard, word) in enumerate(
            [("train", True, 1), ("train", True, 0), ("validation", True, 0), ("test", True, 2), *drawn]
        )
    ]
    for row in table:  # a text alone may not be in two splits
        row["text"] = row["text"] and f"{row['text']}{'' if row['audio'] else row['split']}"
    dataset = load_manifest(write(folder / "rows.parquet", table), INPUTS, None, Cache(folder / "cache"))
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        rows, wanted = split.pairing.rows(0), [row for row in table if row["split"] == name]
        assert len(rows) == len(wanted)
        for (image, text, audio), row in zip(rows.items.tolist(), wanted, strict=True):
            assert image == ABSENT
            assert (None if text == ABSENT else split.items.texts.strings[text]) == row["text"]
            assert (audio == ABSENT) == (row["audio"] is None)
            if row["audio"] is not None:
                heard = prepare_audio(decode_audio(row["audio"], AUDIO), AUDIO)
                np.testing.assert_array_equal(split.items.clips[audio], heard)
