from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.training.data.media import INPUTS, png, sound
from tests.training.data.test_manifest import write
from training.__main__ import app
from training.data.check import Findings, check
from training.data.manifest import Entry, read_manifest


def entry(name: str, split: str = "train", **given: object) -> Entry:
    """A text of its own and label `x`, unless something else is said."""
    told: dict[str, object] = {"text": f"text {name}", "labels": ("x",), **given}
    return Entry(id=name, split=split, **told)  # type: ignore[arg-type]


def findings(*entries: Entry, labels: tuple[str, ...] | None = None) -> Findings:
    return check(entries, INPUTS, labels)


def told(found: Findings) -> list[tuple[str, tuple[str, ...]]]:
    """Of single rows: a few of them are no whole set."""
    return [(one.kind, one.rows) for one in found.found if one.rows]


def whole_set() -> list[dict[str, object]]:
    """Nothing is wrong with these rows, whichever of their inputs are read."""
    return [
        {"id": f"{split} {label}", "image": png(at), "text": f"{split} {label}", "audio": sound(at),
         "label": label, "split": split}
        for at, (split, label) in enumerate(
            (split, label) for split in ("train", "validation", "test") for label in ("cat", "dog")
        )
    ]  # fmt: skip


def test_four_faults_are_reported_with_their_rows_through_the_command_line(tmp_path: Path) -> None:
    for name, body in {
        "a.png": png(1),
        "b.png": png(2),
        "copy of a.png": png(1),
        "cut.png": png(3)[:40],
    }.items():
        (tmp_path / name).write_bytes(body)
    (tmp_path / "c.wav").write_bytes(sound(1))
    rows = [
        {"id": "good-1", "image": "a.png", "text": "one", "audio": "c.wav", "label": "cat", "split": "train"},
        {"id": "good-2", "image": None, "text": "two", "audio": None, "label": "dog", "split": "validation"},
        {"id": "good-3", "image": "b.png", "text": None, "audio": None, "label": "dog", "split": "train"},
        {"id": "gone", "image": "nowhere.png", "text": "x", "audio": None, "label": "cat", "split": "train"},
        {"id": "cut", "image": "cut.png", "text": None, "audio": None, "label": "cat", "split": "train"},
        {
            "id": "again",
            "image": "copy of a.png",
            "text": None,
            "audio": None,
            "label": "cat",
            "split": "test",
        },
        {"id": "odd", "image": None, "text": "four", "audio": None, "label": "cow", "split": "test"},
    ]
    path, answer = write(tmp_path / "rows.jsonl", rows), tmp_path / "answer.json"
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    command = [
        sys.executable,
        "-m",
        "training",
        "check",
        str(path),
        "--labels",
        "cat,dog",
        "--json",
        str(answer),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    found = json.loads(answer.read_text())
    assert [(one["kind"], one["rows"]) for one in found["found"]] == [
        ("missing file", ["gone"]),
        ("undecodable", ["cut"]),
        ("in two splits", ["good-1", "again"]),
        ("unknown label", ["odd"]),
    ]
    for words in (
        "missing file",
        "gone",
        "undecodable",
        "cut",
        "good-1, again",
        "unknown label",
        "4 findings",
    ):
        assert words in done.stdout
    assert found["subsets"]["train"] == {"image": 2, "image+text": 1, "image+text+audio": 1}
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file != answer} == before


def test_a_clean_manifest_exits_0(tmp_path: Path) -> None:
    rows = [
        {"id": split, "text": f"word {split}", "label": "x;y", "split": split}
        for split in ("train", "validation", "test")
    ]
    path = write(tmp_path / "rows.csv", rows)
    result = CliRunner().invoke(app, ["check", str(path), "--task", "multilabel"])
    assert result.exit_code == 0, result.output
    assert "3 rows: nothing is wrong." in result.output


def test_what_is_not_a_manifest_exits_1_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,text,split\n1,a,train\n")
    result = CliRunner().invoke(app, ["check", str(tmp_path / "rows.csv")])
    assert result.exit_code == 1
    assert result.output == "error: rows.csv, row 1: there is no column 'label'. Add it.\n"


def test_nothing_is_found_in_good_rows() -> None:
    found = findings(
        entry("a", image=png(1), group="g"),
        entry("b", image=png(1), audio=sound(1), labels=("y",), group="g"),
        entry("c", "validation", text="text a", image=png(2), audio=sound(2)),
        entry("d", "test", image=png(3), audio=sound(3)),
        entry("e", "test"),
    )
    assert found.is_clean
    assert found.rows == 5
    assert found.classes == {"train": {"x": 1, "y": 1}, "validation": {"x": 1}, "test": {"x": 2}}
    assert found.subsets == {
        "train": {"image+text": 1, "image+text+audio": 1},
        "validation": {"image+text+audio": 1},
        "test": {"image+text+audio": 1, "text": 1},
    }


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"image": b"GIF89a"}, "image: The image is not JPEG, PNG or WebP. Send one of these."),
        ({"text": "   "}, "text: The text is blank. Write something, or leave the part out."),
        ({"text": "a\ud800"}, "text: The text is not UTF-8. Encode it as UTF-8."),
        (
            {"audio": sound(1, seconds=2.5)},
            "audio: The recording lasts longer than the 2 s that this model reads. Send a shorter one.",
        ),
    ],
)
def test_an_undecodable_input_is_reported_with_the_reason_that_serving_gives(
    given: dict[str, object], reason: str
) -> None:
    [one] = (one for one in findings(entry("a", **given), entry("b")).found if one.rows)
    assert (one.kind, one.message, one.rows) == ("undecodable", reason, ("a",))


def test_every_row_with_an_undecodable_input_is_named() -> None:
    assert told(findings(entry("a", image=b"x"), entry("b", image=b"x"))) == [
        ("undecodable", ("a",)),
        ("undecodable", ("b",)),
    ]


def test_a_recording_in_two_splits_is_a_leak_and_a_word_is_not() -> None:
    found = findings(
        entry("a", text="cat", image=png(1), audio=sound(1)),
        entry("b", "test", text="cat", image=png(2), audio=sound(1)),
        entry("c", "validation", text="cat", audio=sound(3)),
    )
    assert told(found) == [("in two splits", ("a", "b"))]
    assert found.found[-1].message == "the same audio is in test and train"


def test_a_row_that_is_only_a_text_is_a_leak_where_it_is_repeated() -> None:
    found = findings(entry("a", text="cat"), entry("b", text="cat"), entry("c", "test", text="cat"))
    assert told(found) == [("in two splits", ("a", "b", "c"))]


def test_a_group_in_two_splits_is_a_leak() -> None:
    found = findings(entry("a", group="g"), entry("b", "test", group="g"), entry("c", group="h"))
    assert told(found) == [("group in two splits", ("a", "b"))]


@pytest.mark.parametrize("labels", [None, ("x", "y")])
def test_labels_that_training_never_sees_are_unknown(labels: tuple[str, ...] | None) -> None:
    rows = entry("a"), entry("b", "test", labels=("y",)), entry("c", "test", labels=("y",))
    found = findings(*rows, labels=labels)
    assert told(found) == [("unknown label", ("b", "c"))]
    assert found.found[-1].message == "'y' is not a label of any training row"
    assert findings(*rows, labels=("x",)).found[-1].message == "'y' is not one of the labels"


def test_rows_that_say_too_little_are_named() -> None:
    found = findings(
        entry("a", text=None),
        entry("b", labels=None),
        entry("c", "dev"),
        entry("c", "", text="y"),
        labels=("x",),
    )
    assert told(found) == [
        ("no modality", ("a",)),
        ("duplicate id", ("c", "c")),
        ("no label", ("b",)),
        ("unknown split", ("c",)),
        ("unknown split", ("c",)),
    ]


def large_picture() -> bytes:
    body = io.BytesIO()
    Image.new("1", (6_000, 4_200)).save(body, "PNG")
    return body.getvalue()


TRIO = ("image=plain", "text=ngrams", "audio=mel")


@pytest.mark.parametrize(
    ("changes", "encoders", "kind"),
    [
        ({"train cat": {"audio": sound(9, seconds=31)}}, TRIO, "undecodable"),
        ({"train cat": {"text": "word " * 4_000}}, TRIO, "undecodable"),
        ({"train cat": {"image": large_picture()}}, TRIO, "undecodable"),
        ({"test dog": {"audio": b"RIFF"}}, TRIO, "undecodable"),
        ({"test dog": {"image": png(0)}}, TRIO, "in two splits"),
        ({"test dog": {"text": "train dog"}}, ("text=ngrams",), "in two splits"),
        ({"train dog": {"group": "g"}, "test dog": {"group": "g"}}, TRIO, "group in two splits"),
        ({"test dog": {"id": "test cat"}}, TRIO, "duplicate id"),
        ({"test dog": {"label": None}}, TRIO, "no label"),
        ({"test dog": {"label": "cow"}}, TRIO, "unknown label"),
        ({"test dog": {"split": "dev"}}, TRIO, "unknown split"),
        ({"test dog": {"image": None}}, ("image=plain",), "no modality"),
        ({"validation cat": {"split": "train"}, "validation dog": {"split": "train"}}, TRIO, "empty split"),
        ({"train dog": {"label": "cat"}}, TRIO, "too few labels"),
        ({"test cat": {"text": None}, "test dog": {"audio": None}}, TRIO, "never together"),
        ({"train cat": {"audio": None}, "train dog": {"audio": None}}, TRIO, "not in training"),
    ],
)
def test_check_finds_what_training_refuses_by_the_command_that_it_names(
    tmp_path: Path, changes: dict[str, dict[str, object]], encoders: tuple[str, ...], kind: str
) -> None:
    rows = [{"group": None, **row, **changes.get(str(row["id"]), {})} for row in whole_set()]
    path, answer = write(tmp_path / "rows.parquet", rows), tmp_path / "answer.json"
    told = [f"--encoder={one}" for one in encoders]
    where = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    refused = CliRunner().invoke(app, ["train", "finetune", "--manifest", str(path), *told, *where])
    assert refused.exit_code == 1
    assert f"error: {kind}: " in refused.output
    command = shlex.split(refused.output.partition("See all with: python -m training ")[2])
    result = CliRunner().invoke(app, [*command, "--json", str(answer)])
    assert result.exit_code == 2, result.output
    assert kind in {one["kind"] for one in json.loads(answer.read_text())["found"]}


def test_labels_may_stand_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", whole_set())
    result = CliRunner().invoke(app, ["check", str(path), "--labels", "cat, dog"])
    assert result.exit_code == 0, result.output


def test_the_answer_s_folder_is_made_before_anything_is_decoded(tmp_path: Path) -> None:
    path, answer = write(tmp_path / "rows.parquet", whole_set()), tmp_path / "a/b/answer.json"
    result = CliRunner().invoke(app, ["check", str(path), "--json", str(answer)])
    assert (result.exit_code, json.loads(answer.read_text())["clean"]) == (0, True)
    below = str(answer / "answer.json")
    result = CliRunner().invoke(app, ["check", str(path), "--json", below])
    assert (result.exit_code, result.output.startswith("error: ")) == (1, True)
    assert "decode" not in result.output


@pytest.mark.parametrize("encoders", [TRIO, ("text=ngrams",), ()])
def test_nothing_is_found_in_a_whole_set(tmp_path: Path, encoders: tuple[str, ...]) -> None:
    path = write(tmp_path / "rows.parquet", whole_set())
    result = CliRunner().invoke(app, ["check", str(path), *(f"--encoder={one}" for one in encoders)])
    assert result.exit_code == 0, result.output


def test_without_encoders_no_modality_has_to_be_there(tmp_path: Path) -> None:
    rows = [{**row, "audio": None} for row in whole_set()]
    result = CliRunner().invoke(app, ["check", str(write(tmp_path / "rows.parquet", rows))])
    assert result.exit_code == 0, result.output


def test_a_modality_that_is_not_read_does_not_count() -> None:
    text_only = INPUTS.model_copy(update={"image": None, "audio": None})
    found = check([entry("a", text=None, image=png(1)), entry("b", image=b"broken")], text_only, None)
    assert told(found) == [("no modality", ("a",))]


def test_a_folder_in_place_of_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    rows = [{"id": "a", "image": "a.png", "label": "x", "split": "train"}]
    found = check(read_manifest(write(tmp_path / "rows.jsonl", rows)), INPUTS, None)
    assert told(found) == [("missing file", ("a",))]
    assert found.found[-1].message.endswith("a.png cannot be read as a file")
