"""Each kind of input, whole and broken."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import tarfile
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from app.bundle.sample import RawInputs
from app.rows.errors import Unreadable
from app.rows.letters import dead_letter
from app.rows.records import Names, json_bytes
from app.rows.row import Row
from app.score import inputs
from app.score.errors import NotAsked
from app.score.inputs import Input, open_input
from tests import tiny

MOST = {"image": 10**6, "text": 10**6, "audio": 10**6}
SUBSETS = (("image", "text", "audio"), ("text",), ("image", "audio"))


def rows_of(*given: Path | str) -> list[Row]:
    return list(open_input([str(one) for one in given], Names()))


def wanted() -> list[tuple[str, RawInputs]]:
    return [(f"r{number}", tiny.row(number, subset)) for number, subset in enumerate(SUBSETS)]


def write_media(folder: Path) -> None:
    folder.mkdir()
    for row_id, raw in wanted():
        for suffix, body in ((".png", raw.image), (".txt", raw.text), (".wav", raw.audio)):
            if body is not None:
                (folder / f"{row_id}{suffix}").write_bytes(body)


def as_paths(folder: Path) -> list[dict[str, str]]:
    write_media(folder / "media")
    return [
        {"id": row_id}
        | ({"image": f"media/{row_id}.png"} if raw.image else {})
        | ({"text": raw.text.decode()} if raw.text else {})
        | ({"audio": f"media/{row_id}.wav"} if raw.audio else {})
        for row_id, raw in wanted()
    ]


def jsonl(folder: Path) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("\n\n".join(map(json.dumps, as_paths(folder))))
    return file


def openai_batch(folder: Path) -> Path:
    """As OpenAI's batches have it: media in base64."""
    file = folder / "batch.jsonl"
    with file.open("w") as lines:
        for row_id, raw in wanted():
            body = {name: base64.b64encode(getattr(raw, name)).decode() for name in raw.present}
            body |= {} if raw.text is None else {"text": raw.text.decode()}
            request = {"custom_id": row_id, "method": "POST", "url": "/v1/predict", "body": body}
            lines.write(json.dumps(request) + "\n")
    return file


def comma_separated(folder: Path) -> Path:
    file = folder / "rows.csv"
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, ["id", "text", "image", "audio", "label"])
        writer.writeheader()
        writer.writerows(as_paths(folder))
    return file


def parquet_of_paths(folder: Path) -> Path:
    file = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(as_paths(folder)), file)
    return file


def audio_of(raw: RawInputs) -> dict[str, bytes] | None:
    """As Hugging Face's data sets have it."""
    return None if raw.audio is None else {"bytes": raw.audio}


def parquet_of_bytes(folder: Path) -> Path:
    file = folder / "rows.parquet"
    rows = [
        {"id": row_id, "image": raw.image, "text": (raw.text or b"").decode() or None, "audio": audio_of(raw)}
        for row_id, raw in wanted()
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


def media_folder(folder: Path) -> Path:
    write_media(folder / "media")
    (folder / "media" / "notes.md").write_text("not a medium")
    return folder / "media"


def shard(folder: Path, name: str = "s-000.tar", rows: list[tuple[str, RawInputs]] | None = None) -> Path:
    file = folder / name
    with tarfile.open(file, "w") as tar:
        for row_id, raw in rows or wanted():
            for suffix, body in (("png", raw.image), ("cls", b"3"), ("txt", raw.text), ("wav", raw.audio)):
                if body is not None:
                    member = tarfile.TarInfo(f"{row_id}.{suffix}")
                    member.size = len(body)
                    tar.addfile(member, io.BytesIO(body))
    return file


WRITERS = (
    jsonl, openai_batch, comma_separated, parquet_of_paths, parquet_of_bytes, media_folder, shard,
)  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_every_kind_of_input_gives_the_same_rows(tmp_path: Path, write: object) -> None:
    assert callable(write)
    rows = rows_of(write(tmp_path))
    assert [(row.id, row.load(MOST)) for row in rows] == wanted()
    assert [row.position for row in rows] == [0, 1, 2]
    assert all(0 <= row.share <= 1 for row in rows)


@pytest.mark.parametrize("given", ["s-*.tar", "s-{000..001}.tar", "."])
def test_shards_are_read_one_after_the_other(tmp_path: Path, given: str) -> None:
    shard(tmp_path, "s-000.tar", wanted()[:2])
    shard(tmp_path, "s-001.tar", wanted()[2:])
    assert [(row.id, row.load(MOST)) for row in rows_of(f"{tmp_path}/{given}")] == wanted()


def test_broken_lines_do_not_end_the_reading(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(
        b'{"id": "a", "text": "x"}\n{"id": \n\xff\n[' + b"[" * 100_000 + b'\n{"id": "b", "text": "y"}'
    )
    rows = rows_of(file)
    assert [(row.id, row.problem and row.problem.code) for row in rows] == [
        ("a", None), *((f"row-{line}", "invalid_json") for line in (1, 2, 3)), ("b", None),
    ]  # fmt: skip
    assert rows[1].original == '{"id": '


def test_broken_csv_does_not_end_the_reading(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b'id,text\na,x\nb\nc,"y"z\nd,\xff\ne,w,v\nf,ok\n')
    rows = rows_of(file)
    assert [row.id for row in rows if row.problem is None] == ["a", "d", "f"]
    assert {row.problem.code for row in rows if row.problem} == {"invalid_csv"}
    assert len(rows) == 6


def test_a_shard_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    file = shard(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:1500])
    rows = rows_of(file)
    assert [row.id for row in rows][:1] == ["r0"]
    assert rows[-1].problem is not None
    assert rows[-1].problem.code == "shard_broken"
    file.write_bytes(b"no tar" * 1000)
    [only] = rows_of(file)
    assert only.problem is not None


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\x80" + b"\0" * 3 + b"\x7f" * 8])
@pytest.mark.parametrize("member", [0, 1])
def test_a_shard_whose_numbers_cannot_be_is_broken(tmp_path: Path, size: bytes, member: int) -> None:
    """In tar's binary form a member may say that it has less than nothing, or more than any disk."""
    file = shard(tmp_path)
    with tarfile.open(file) as tar:
        header = bytearray(file.read_bytes()[: (start := tar.getmembers()[member].offset) + 512])
    header[start + 124 : start + 136] = size
    header[start + 148 : start + 156] = b" " * 8
    header[start + 148 : start + 156] = f"{sum(header[start : start + 512]):06o}\0 ".encode()
    file.write_bytes(header + file.read_bytes()[len(header) :])
    problem = rows_of(file)[-1].problem
    assert problem is not None
    assert problem.code == "shard_broken"


def a_shard_of(folder: Path, *members: tuple[str, bytes]) -> Path:
    file = folder / "of.tar"
    with tarfile.open(file, "w") as tar:
        for name, body in members:
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return file


def test_two_pictures_of_a_sample_are_a_problem(tmp_path: Path) -> None:
    file = a_shard_of(
        tmp_path, ("a.left.png", b"1"), ("a.right.png", b"2"), ("a.txt", b"uno"), ("b.png", b"3")
    )
    problems = {row.id: row.problem and row.problem.code for row in rows_of(file)}
    assert problems == {"a": "ambiguous_row", "b": None}


@pytest.mark.parametrize("other", ["README", "._a.txt", "d/._a.png", ".DS_Store", "d/README"])
def test_what_belongs_to_no_sample_does_not_divide_one(tmp_path: Path, other: str) -> None:
    [row] = rows_of(a_shard_of(tmp_path, (other, b"x"), ("a.png", b"1"), (other, b"x"), ("a.txt", b"uno")))
    assert (row.id, row.load(MOST)) == ("a", RawInputs(image=b"1", text=b"uno", audio=None))


def test_two_pictures_for_one_row_are_a_problem(tmp_path: Path) -> None:
    write_media(tmp_path / "media")
    (tmp_path / "media" / "r0.jpg").write_bytes(b"")
    problems = {row.id: row.problem and row.problem.code for row in rows_of(tmp_path / "media")}
    assert problems == {"r0": "ambiguous_row", "r1": None, "r2": None}


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("rows.csv", b"a,b\n1,2\n", "names none of the columns"),
        ("rows.csv", b'"id"x,text\n1,a\n', "the header is not CSV"),
        ("rows.parquet", b"PAR0", "not readable as Parquet"),
        ("rows.xlsx", b"", "an input is a folder or one of"),
    ],
)
def test_inputs_that_cannot_be(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(NotAsked, match=said):
        rows_of(tmp_path / name)


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    for given in ("nothing.jsonl", "no-*.tar", "s-{005..003}.tar"):
        with pytest.raises(NotAsked, match="no"):
            rows_of(tmp_path / given)
    with pytest.raises(NotAsked, match="empty"):
        rows_of("")
    parquet_of_paths(tmp_path).rename(tmp_path / "media" / "rows.parquet")
    for file in (tmp_path / "media").glob("r0.*"):
        file.unlink()
    assert [row.id for row in rows_of(tmp_path / "media")] == ["r1", "r2"]
    for file in (tmp_path / "media").glob("r[12].*"):
        file.unlink()
    with pytest.raises(NotAsked, match=r"Name its manifests, such as '.*/media/\*\.parquet'"):
        rows_of(tmp_path / "media")


def test_a_change_of_the_input_shows(tmp_path: Path) -> None:
    file = jsonl(tmp_path)
    for path in (file, tmp_path / "media"):
        before = open_input([str(path)], Names()).fingerprint()
        assert open_input([str(path)], Names()).fingerprint() == before
        changed = path if path.is_file() else path / "r0.png"
        changed.write_bytes(changed.read_bytes() + b" ")
        assert open_input([str(path)], Names()).fingerprint() != before


def test_a_link_that_leads_nowhere_is_one_row_and_part_of_what_is_compared(tmp_path: Path) -> None:
    write_media(tmp_path / "media")
    link = tmp_path / "media" / "r9.png"
    link.symlink_to("nowhere.png")
    given = open_input([str(tmp_path / "media")], Names())
    before = given.fingerprint()
    assert given.fingerprint() == before
    with pytest.raises(Unreadable, match="no file"):
        list(given)[-1].load(MOST)
    link.unlink()
    assert given.fingerprint() != before


def test_of_many_large_shards_the_ends_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for file in files:
        file.write_bytes(b"{}\n" * 20)
    monkeypatch.setattr(inputs, "_HASHED_WHOLE", 130)
    said = Input(tuple(files)).fingerprint()
    assert [("sha256" in one, "changed_ns" in one) for one in said] == [
        (True, False), (True, False), (False, True)
    ]  # fmt: skip
    assert said[2]["sha256_of_ends"] != said[0]["sha256"]
    assert Input(tuple(files)).fingerprint() == said


def test_the_share_that_is_read_is_of_all_bytes(tmp_path: Path) -> None:
    (tmp_path / "small.jsonl").write_bytes(b"{}\n")
    (tmp_path / "large.jsonl").write_bytes(b"{}\n" * 9)
    shares = [row.share for row in rows_of(tmp_path / "small.jsonl", tmp_path / "large.jsonl")]
    assert shares == pytest.approx([number / 10 for number in range(1, 11)])


def test_what_parquet_knows_and_json_does_not_is_its_text(tmp_path: Path) -> None:
    """Dates as ids are fine; as pictures they become dead letters, which must be written."""
    file = tmp_path / "rows.parquet"
    day = datetime.date(2026, 1, 2)
    columns = {"id": [day], "image": [day], "text": [Decimal("1.50")], "audio": [[day, None]]}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    [row] = rows_of(file)
    assert row.id == "2026-01-02"
    assert row.problem is not None
    assert row.problem.code == "invalid_audio"
    letter = dead_letter(
        row, stage="read", code="invalid_audio", reason="", attempts=1, at=datetime.datetime.now(datetime.UTC)
    )
    again = json.loads(json.dumps(letter, default=json_bytes))["row"]
    assert again == {"id": "2026-01-02", "image": "2026-01-02", "text": "1.50", "audio": ["2026-01-02", None]}
