from __future__ import annotations

import csv
import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.errors import DataMissing, ManifestUnreadable
from training.data.manifest import Entry, read_manifest

ROWS: list[dict[str, Any]] = [
    {"id": "a", "image": "pictures/a.png", "text": "one", "audio": None, "label": "1", "split": "train",
     "group": "g", "lang": "en"},
    {"id": "b", "image": None, "text": None, "audio": "b.wav", "label": "2", "split": "test",
     "group": None, "lang": None},
]  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """By the ending of the name."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_three_formats_say_the_same(tmp_path: Path, ending: str) -> None:
    entries = read_manifest(write(tmp_path / f"rows.{ending}", ROWS))
    folder = tmp_path.resolve()
    assert entries == (
        Entry(
            id="a", image=folder / "pictures/a.png", text="one", labels=("1",), split="train", group="g",
            columns={"lang": "en"},
        ),
        Entry(id="b", audio=folder / "b.wav", labels=("2",), split="test", columns={"lang": ""}),
    )  # fmt: skip


def test_parquet_holds_the_inputs_themselves(tmp_path: Path) -> None:
    rows = [{"id": 7, "image": b"\x89PNG", "label": 3, "split": "train", "size": 1.5}]
    [entry] = read_manifest(write(tmp_path / "rows.parquet", rows))
    assert entry == Entry(
        id="7", image=b"\x89PNG", labels=("3",), split="train", columns={"size": "1.5"}
    )  # numbers are read as they are written


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    path.write_text(path.read_text().replace("\n", "\n\n") + "  \n")
    assert [entry.id for entry in read_manifest(path)] == ["a", "b"]


def test_a_csv_holds_texts_of_any_length(tmp_path: Path) -> None:
    text = "word " * 40_000
    [entry, _] = read_manifest(write(tmp_path / "rows.csv", [{**ROWS[0], "text": text}, ROWS[1]]))
    assert entry.text == text


def test_times_and_amounts_are_columns_too(tmp_path: Path) -> None:
    when, price = pyarrow.scalar(1_704_067_200_000_000_001, pyarrow.timestamp("ns")), Decimal("1.50")
    rows = [
        {**ROWS[0], "day": datetime.date(2024, 1, 1), "price": price},
        {**ROWS[1], "day": None, "price": price},
    ]
    table = pyarrow.Table.from_pylist(rows)
    table = table.append_column("when", pyarrow.array([when, None], when.type))
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    first, second = (entry.columns for entry in read_manifest(tmp_path / "rows.parquet"))
    assert first == {
        "lang": "en", "day": "2024-01-01", "price": "1.50", "when": "2024-01-01 00:00:00.000000001"
    }  # fmt: skip
    assert second == {"lang": "", "day": "", "price": "1.50", "when": ""}


@pytest.mark.parametrize("column", ["id", "image", "audio", "label", "split", "group", "lang"])
def test_half_a_character_is_named(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "rows.jsonl", [ROWS[0], {**ROWS[1], column: "a\ud800"}])
    with pytest.raises(ManifestUnreadable, match=f"row 2, column '{column}': it holds half a character"):
        read_manifest(path)


def test_half_a_character_of_a_text_is_left_to_whoever_reads_texts(tmp_path: Path) -> None:
    [entry] = read_manifest(write(tmp_path / "rows.jsonl", [{**ROWS[0], "text": "a\ud800"}]))
    assert entry.text == "a\ud800"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": ["x", "\ud800"]}, "column 'label': it holds half"),
        ({"\udc00": "x"}, "row 1: a column's name holds half"),
    ],
)
def test_half_a_character_elsewhere_is_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "rows.jsonl", [{**ROWS[0], **changes}])
    with pytest.raises(ManifestUnreadable, match=message):
        read_manifest(path, task="multilabel")


def test_an_absent_input_stays_absent(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "", "image": None, "label": "", "split": ""}]
    [entry] = read_manifest(write(tmp_path / "rows.jsonl", rows))
    assert (entry.text, entry.image, entry.audio, entry.labels, entry.split) == (None, None, None, None, "")
    assert not any(entry.holds(name) for name in ("image", "text", "audio"))


@pytest.mark.parametrize(("ending", "cell"), [("csv", "b; a"), ("jsonl", ["b", "a", "b"]), ("jsonl", "b;a")])
def test_several_labels(tmp_path: Path, ending: str, cell: object) -> None:
    path = write(tmp_path / f"rows.{ending}", [{"id": "a", "text": "x", "label": cell, "split": "train"}])
    [entry] = read_manifest(path, task="multilabel")
    assert entry.labels == ("b", "a")


def test_no_label_applies_is_not_no_label(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "text": "x", "label": [], "split": "train"},
        {"id": "b", "text": "x", "label": None, "split": "train"},
    ]
    entries = read_manifest(write(tmp_path / "rows.jsonl", rows), task="multilabel")
    assert [entry.labels for entry in entries] == [(), None]


def test_one_label_may_hold_a_semicolon(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "x", "label": "b;a", "split": "train"}]
    assert read_manifest(write(tmp_path / "rows.jsonl", rows))[0].labels == ("b;a",)


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/hostname", "pictures/../../x.png", "out/x.png", "a\0b"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    rows = [{"id": "a", "image": path, "label": "1", "split": "train"}]
    with pytest.raises(ManifestUnreadable, match="row 1, column 'image': the path leaves"):
        read_manifest(write(folder / "rows.jsonl", rows))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": None}, "row 2, column 'id': it is empty"),
        ({"text": 5}, "row 2, column 'text': a int where a text belongs"),
        ({"image": {"bytes": "x"}}, "row 2, column 'image': a dict where a path belongs"),
        ({"label": ["1", "2"]}, "row 2, column 'label': a list where a string belongs"),
        ({"group": 1.5}, "row 2, column 'group': a float"),
        ({"lang": ["en"]}, "row 2, column 'lang': a list"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    rows = [ROWS[0], {**ROWS[1], **changes}]
    with pytest.raises(ManifestUnreadable, match=message):
        read_manifest(write(tmp_path / "rows.jsonl", rows))


@pytest.mark.parametrize("column", ["id", "label", "split"])
def test_a_column_that_lacks_is_named(tmp_path: Path, column: str) -> None:
    rows = [{name: value for name, value in ROWS[0].items() if name != column}]
    with pytest.raises(ManifestUnreadable, match=f"no column '{column}'"):
        read_manifest(write(tmp_path / "rows.csv", rows))


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("rows.jsonl", b'{"id": "a"\n', "row 1: it is not JSON"),
        ("rows.jsonl", b"[1]\n", "row 1: it is not a JSON object"),
        ("rows.jsonl", b'{"id": "\xff"}\n', "not UTF-8"),
        ("rows.jsonl", b"", "no rows"),
        ("rows.csv", b"id,text,label,split\na,b\n", "row 1: 2 cells, but the header names 4"),
        ("rows.csv", b"id,id,label,split\n", "names a column twice"),
        ("rows.csv", b'id,text,label,split\n"a"b,c,d,e\n', "line 2"),
        ("rows.csv", b"id,label,split\na,b,train\n", "none of the columns image, text, audio"),
        ("rows.parquet", b"PAR1 but no more", "not a complete Parquet file"),
        ("rows.tsv", b"", "a manifest ends with one of"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, name: str, body: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(ManifestUnreadable, match=message):
        read_manifest(tmp_path / name)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"rows\.csv is not there"):
        read_manifest(tmp_path / "rows.csv")


@given(text=st.text(min_size=1), label=st.text(min_size=1), lang=st.text())
def test_any_string_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, text: str, label: str, lang: str
) -> None:
    rows = [{"id": "a", "text": text, "label": label, "split": "train", "lang": lang}]
    [entry] = read_manifest(write(tmp_path_factory.mktemp("any") / "rows.jsonl", rows))
    assert (entry.text, entry.labels, entry.columns) == (text, (label,), {"lang": lang})


@given(at=st.integers(0, 10_000), body=st.binary(min_size=1, max_size=30))
def test_a_damaged_parquet_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, body: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("damaged") / "rows.parquet", ROWS)
    whole = path.read_bytes()
    at %= len(whole)
    path.write_bytes(whole[:at] + body + whole[at + len(body) :])
    try:
        entries = read_manifest(path)
    except ManifestUnreadable as error:
        assert "rows.parquet" in str(error)
    else:
        assert all(isinstance(entry, Entry) for entry in entries)


@given(body=st.binary(max_size=60), ending=st.sampled_from(["jsonl", "csv", "parquet"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, ending: str
) -> None:
    path = tmp_path_factory.mktemp("any") / f"rows.{ending}"
    path.write_bytes(b"id,text,label,split\n" + body if ending == "csv" else body)
    try:
        entries = read_manifest(path)
    except ManifestUnreadable as error:
        assert f"rows.{ending}" in str(error)
    else:
        assert all(isinstance(entry, Entry) for entry in entries)
