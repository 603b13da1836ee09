"""Every shape of a row, and what is wrong with a wrong one."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rows.errors import Unreadable
from app.rows.letters import dead_letter
from app.rows.records import Names, Record, json_bytes, to_row
from app.rows.row import InFile, Row
from tests import tiny

PICTURE = tiny.png((1, 2, 3))
BASE64 = base64.b64encode(PICTURE).decode()
NOW = datetime(2026, 1, 2, tzinfo=UTC)
MOST = {"image": 10_000, "text": 10_000, "audio": 10_000}


def read(value: object, base: Path = Path("/data"), names: Names = Names()) -> Row:  # noqa: B008 - frozen
    return to_row(Record(value, base, 0.0), names, position=7)


@pytest.mark.parametrize(
    ("value", "media"),
    [
        ({"id": "a", "image": "x/1.png"}, {"image": InFile(Path("/data/x/1.png"))}),
        ({"id": "a", "image": "/x/1.png"}, {"image": InFile(Path("/x/1.png"))}),
        ({"id": "a", "image": "/9j/photos/2024/a.jpg"}, {"image": InFile(Path("/9j/photos/2024/a.jpg"))}),
        ({"id": "a", "audio": "//srv/clips/a.wav"}, {"audio": InFile(Path("//srv/clips/a.wav"))}),
        ({"id": "a", "image": BASE64}, {"image": PICTURE}),
        ({"id": "a", "image": f"data:image/png;base64,{BASE64}"}, {"image": PICTURE}),
        ({"id": "a", "image": {"base64": BASE64}}, {"image": PICTURE}),
        ({"id": "a", "image": PICTURE}, {"image": PICTURE}),
        ({"id": "a", "image": {"bytes": PICTURE, "path": "1.png"}}, {"image": PICTURE}),
        ({"id": "a", "image": {"path": "1.png"}}, {"image": InFile(Path("/data/1.png"))}),
        (
            {"id": "a", "audio": {"file": "s.tar", "offset": 512, "size": 9}},
            {"audio": InFile(Path("/data/s.tar"), 512, 9)},
        ),
        ({"id": "a", "text": "due", "label": "x", "audio": None}, {"text": b"due"}),
        ({"custom_id": "a", "body": {"image": BASE64, "text": "due"}}, {"image": PICTURE, "text": b"due"}),
        ({"custom_id": "a", "text": "due", "body": "of a letter"}, {"text": b"due"}),
        ({"id": "a", "text": "due", "body": {"text": "uno"}}, {"text": b"due"}),
    ],
)
def test_shapes_of_a_row(value: object, media: dict[str, object]) -> None:
    row = read(value)
    assert (row.id, row.problem, dict(row.media)) == ("a", None, media)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([], "invalid_row"),
        ({"id": "a"}, "no_modality"),
        ({"id": True, "text": "x"}, "invalid_id"),
        ({"id": "\ud800", "text": "x"}, "invalid_id"),
        ({"id": "a", "image": 5}, "invalid_image"),
        ({"id": "a", "image": "data:image/png,abc"}, "invalid_image"),
        ({"id": "a", "image": {"base64": "!"}}, "invalid_image"),
        ({"id": "a", "audio": "https://host/x.wav"}, "not_a_file"),
        ({"id": "a", "audio": {"file": "x", "offset": -1}}, "invalid_row"),
        ({"custom_id": "a", "body": "x"}, "invalid_row"),
        ({"custom_id": "a", "body": {"image": "x.png"}}, "invalid_image"),
    ],
)
def test_a_wrong_row_says_why(value: object, code: str) -> None:
    problem = read(value).problem
    assert problem is not None
    assert problem.code == code


def test_a_row_without_an_id_has_its_number() -> None:
    assert read({"text": "x"}).id == "row-7"
    assert read({"id": 12, "text": "x"}).id == "12"


def test_columns_have_the_names_that_are_given() -> None:
    row = read({"sku": 4, "photo": "1.png", "image": "no"}, names=Names(id="sku", image="photo"))
    assert (row.id, dict(row.media)) == ("4", {"image": InFile(Path("/data/1.png"))})
    assert row.original == {"id": 4, "image": "1.png"}


def test_a_column_may_be_called_body() -> None:
    row = read({"body": "due", "image": "1.png"}, names=Names(text="body"))
    assert (row.problem, row.media["text"]) == (None, b"due")
    assert row.original == {"text": "due", "image": "1.png"}


ENTRIES = st.sampled_from(("id", "image", "text", "body", "row", "stage", "code", "base", "file", "path"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ENTRIES, inner, max_size=6),
    )
)
def test_no_record_breaks_the_reading(value: Any) -> None:
    row = read(value)
    assert row.problem or row.media
    json.dumps(row.original, default=json_bytes)


@pytest.mark.parametrize(
    "value",
    [
        {"id": "a", "image": "x/1.png", "text": b"\xff"},
        {"id": "a", "text": b"seven", "audio": "late.wav"},
        {"id": "a", "image": {"bytes": PICTURE, "path": "x.png"}, "audio": {"path": "late.wav"}},
        {"id": "a", "image": {"bytes": PICTURE}},
        {"id": "a", "image": PICTURE, "text": "due"},
    ],
)
def test_a_dead_letter_is_the_row_that_failed(value: object) -> None:
    failed = read(value)
    letter = dead_letter(failed, stage="read", code="file_not_found", reason="", attempts=1, at=NOW)
    again = read(json.loads(json.dumps(letter, default=json_bytes)), base=Path("/elsewhere"))
    assert (again.id, again.problem, again.base) == ("a", None, Path("/data"))
    assert again.media == failed.media
    assert again.original == json.loads(json.dumps(failed.original, default=json_bytes))


@pytest.mark.parametrize(
    ("where", "code"),
    [
        (InFile(Path("nothing")), "file_not_found"),
        (InFile(Path("/dev/zero")), "not_a_file"),
        (InFile(Path("/")), "not_a_file"),
        (InFile(Path("nul\0")), "file_unreadable"),
        (InFile(Path(__file__), offset=10, size=10**6), "file_truncated"),
    ],
)
def test_files_that_cannot_be_read(where: InFile, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        where.read(most=10**7)
    assert caught.value.code == code


def test_no_more_is_read_than_is_needed_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(bytes(50_000))
    row = read({"id": "a", "image": "huge"}, base=tmp_path)
    assert len(row.load(MOST).image or b"") == 10_001
