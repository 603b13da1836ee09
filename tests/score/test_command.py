"""`trichord score` as its users run it: killed, interrupted, poisoned, changed underneath; every row once."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.api.errors import CATALOGUE
from app.bundle.errors import InputError
from app.runtime.predictor import Predictor
from tests import tiny
from tests.score.running import (
    ROWS,
    answers,
    check,
    ended,
    every_id,
    ids,
    kill,
    letters,
    score,
    small,
    started,
    wait_for,
)
from tests.server import Server, free_port


def test_a_bundle_scores_every_row_though_it_is_killed(
    folder: Path, manifest: Path, tmp_path: Path, predictor: Predictor
) -> None:
    chance = random.Random(5)  # noqa: S311
    given = ("--input", manifest, "--output", tmp_path / "out", "--bundle", folder, "--part-rows", 12)
    kills = 0
    for _ in range(4):
        process = started(*given, "--rate", 250)
        kills += wait_for(tmp_path / "out", chance.randint(1, 6), process)
        kill(process)
    done = ended(started(*given))
    assert kills == 4, "each of them was killed amid its work"
    assert (done.code, done.stderr) == (3, "")
    assert done.summary["scored"] + done.summary["dead_letters"] == ROWS
    assert 0 < done.summary["this_time"]["finished_before"] < ROWS
    check(tmp_path / "out", predictor)


def test_a_server_and_its_client_are_killed_in_turns(
    models_dir: Path, manifest: Path, tmp_path: Path, predictor: Predictor
) -> None:
    port = free_port()
    output = tmp_path / "out"
    given = ("--input", manifest, "--output", output, "--url", f"http://127.0.0.1:{port}", "--part-rows", 12)
    slowly = ("--rate", 20, "--batch-rows", 8, "--concurrency", 1)  # or all would wait for the next server
    for _ in range(2):
        with served(models_dir, port) as server:
            process = started(*given, *slowly)
            assert wait_for(output, 4, process)
            server.kill()
        with served(models_dir, port):
            assert wait_for(output, 4, process) or process.poll() is not None, "it goes on with the next"
            kill(process)
    with served(models_dir, port):
        done = ended(started(*given))
    assert (done.code, done.stderr) == (3, "")
    check(output, predictor)


@contextmanager
def served(models_dir: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server at this port, which may be killed before the block ends."""
    environment = os.environ | {
        "TRICHORD_PORT": str(port), "TRICHORD_MODELS_DIR": str(models_dir), "TRICHORD_WORKERS": "1"
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve"], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            assert process.poll() is None
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_url_answers_as_the_bundle(
    server: Server, folder: Path, manifest: Path, tmp_path: Path, predictor: Predictor
) -> None:
    for name, engine in (("url", ("--url", server.url)), ("bundle", ("--bundle", folder))):
        done = score(
            "--input",
            manifest,
            "--output",
            tmp_path / name,
            *engine,
            "--ordered",
            "--include-embeddings",
            "--explain",
        )
        assert done.code == 3
        check(tmp_path / name, predictor)
    for ours, theirs in zip(answers(tmp_path / "url"), answers(tmp_path / "bundle"), strict=True):
        assert ours["embedding"] == pytest.approx(theirs["embedding"], abs=1e-5)
        contributed = {name: value for name, value in theirs.items() if name.startswith("contribution_")}
        assert list(contributed) == [f"contribution_{name}" for name in ours["modalities"]]
        assert {name: ours[name] for name in contributed} == pytest.approx(contributed, abs=1e-5)
        added = sum(contributed.values()) + math.log(1 / 3)
        assert added == pytest.approx(math.log(theirs["probability"]), abs=1e-6)
        assert ours.keys() == theirs.keys()
    order = [int(row["id"][1:]) for row in answers(tmp_path / "url")]
    assert order == sorted(order)


def test_interrupted_it_ends_in_order_and_goes_on(folder: Path, manifest: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    given = ("--input", manifest, "--output", output, "--bundle", folder, "--part-rows", 12)
    for number in (signal.SIGINT, signal.SIGTERM):
        process = started(*given, "--rate", 250)
        assert wait_for(output, 2, process)
        process.send_signal(number)
        done = ended(process)
        assert done.code == 130
        assert done.stderr == "trichord: Interrupted. What is finished is kept: run it again to go on.\n"
        assert sum(ids(output).values()) == done.summary["scored"] + done.summary["dead_letters"]
    assert score(*given).code == 3
    assert ids(output) == every_id()


def test_interrupted_it_does_not_wait_for_the_next_row(server: Server, tmp_path: Path) -> None:
    given = ("--input", small(tmp_path), "--output", tmp_path / "out", "--url", server.url, "--rate", 0.01)
    process = started(*given)
    while process.poll() is None and not (tmp_path / "out" / "_state" / "parts.jsonl").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert ended(process, within_s=30).code == 130


def test_what_changed_is_not_mixed(folder: Path, tmp_path: Path) -> None:
    rows = small(tmp_path)
    given = ("--input", rows, "--output", tmp_path / "out", "--bundle", folder)
    assert score(*given).code == 0
    assert score(*given).summary["this_time"]["finished_before"] == 20
    other = tiny.write(tmp_path / "models", version=2)
    refused = score("--input", rows, "--output", tmp_path / "out", "--bundle", other)
    assert (refused.code, "The model has changed" in refused.stderr) == (2, True)
    refused = score(*given, "--columns", "label")
    assert (refused.code, "The options of the output have changed" in refused.stderr) == (2, True)
    small(tmp_path, 21)
    refused = score(*given)
    assert (refused.code, "The input has changed" in refused.stderr) == (2, True)
    done = score(*given, "--restart", "--columns", "label")
    assert (done.code, len(ids(tmp_path / "out"))) == (0, 21)
    assert {tuple(row) for row in answers(tmp_path / "out")} == {("id", "label")}


def test_dead_letters_are_an_input(folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "image": "late.png"}\n{"id": "b", "text": "due"}\n')
    assert score("--input", rows, "--output", tmp_path / "out", "--bundle", folder).code == 3
    assert [letter["id"] for letter in letters(tmp_path / "out")] == ["a"]
    again = ("--input", tmp_path / "out" / "errors.jsonl", "--output", tmp_path / "again", "--bundle", folder)
    assert score(*again).code == 3
    (tmp_path / "late.png").write_bytes(tiny.png((250, 0, 0)))
    assert score(*again, "--restart").code == 0
    assert [(row["id"], row["label"]) for row in answers(tmp_path / "again")] == [("a", "red")]
    inside = score(
        "--input", tmp_path / "out" / "errors.jsonl", "--output", tmp_path / "out", "--bundle", folder
    )
    assert (inside.code, "lies in the output folder" in inside.stderr) == (2, True)


def test_a_row_that_its_reader_refused_is_not_answered_in_part(folder: Path, tmp_path: Path) -> None:
    """Where cells or files may be anybody's, its dead letter says all of them, and is refused as well."""
    (tmp_path / "rows.csv").write_text("id,text\na,not a seven, but a three\nb,due\n")
    (tmp_path / "few.csv").write_text("id,text,image\nc,uno\n")
    media = tmp_path / "media"
    media.mkdir()
    for name in ("d.png", "d.PNG"):
        (media / name).write_bytes(tiny.png((250, 0, 0)))
    (media / "d.txt").write_text("uno")
    inputs = [part for name in ("rows.csv", "few.csv", "media") for part in ("--input", tmp_path / name)]
    assert score(*inputs, "--output", tmp_path / "out", "--bundle", folder).summary["scored"] == 1
    first = letters(tmp_path / "out")
    assert {letter["id"]: letter["code"] for letter in first} == {
        "a": "invalid_csv", "c": "invalid_csv", "d": "ambiguous_row"
    }  # fmt: skip
    assert first[0]["row"] == {"id": "a", "text": ["a", "not a seven", " but a three"]}
    again = ("--input", tmp_path / "out" / "errors.jsonl", "--output", tmp_path / "again", "--bundle", folder)
    assert score(*again).summary["scored"] == 0
    assert [letter["id"] for letter in letters(tmp_path / "again")] == ["a", "c", "d"]


def test_ids_that_come_again(folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "text": "uno"}\n{"id": "a", "text": "due"}\n{"text": "tre"}\n')
    dry = score("--input", rows, "--output", tmp_path / "out", "--dry-run")
    assert (dry.code, dry.summary["first_duplicates"]) == (2, ["a"])
    assert score("--input", rows, "--output", tmp_path / "out", "--bundle", folder).code == 3
    assert [(letter["position"], letter["code"]) for letter in letters(tmp_path / "out")] == [
        (1, "duplicate_id")
    ]


def test_a_dry_run_asks_nobody(manifest: Path, tmp_path: Path) -> None:
    done = score("--input", manifest, "--output", tmp_path / "out", "--dry-run")
    assert done.code == 3
    assert done.summary["rows"] == ROWS
    assert done.summary["unreadable"] == 13
    assert sum(done.summary["subsets"].values()) == ROWS - 13
    assert not (tmp_path / "out").exists()


def test_shards_and_limits_take_their_rows(folder: Path, tmp_path: Path) -> None:
    rows = small(tmp_path, 50)
    found: Counter[str] = Counter()
    for index in range(3):
        output = tmp_path / f"out-{index}"
        given = ("--input", rows, "--output", output, "--bundle", folder, "--shard", f"{index}/3")
        assert score(*given, "--limit", 4).summary["scored"] == 4
        assert score(*given).code == 0
        found += ids(output)
    assert found == Counter(f"r{number}" for number in range(50))


@pytest.mark.parametrize("most", ["3", "1%"])
def test_too_many_errors_stop_it(folder: Path, manifest: Path, tmp_path: Path, most: str) -> None:
    given = ("--input", manifest, "--output", tmp_path / "out", "--bundle", folder)
    stopped = score(*given, "--max-errors", most)
    assert stopped.code == 4
    assert "more than --max-errors allows" in stopped.stderr
    assert stopped.summary["scored"] < ROWS - 25
    assert score(*given, "--max-errors", "10%").code == 3
    assert ids(tmp_path / "out") == every_id()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "either --bundle or --url"),
        (("--bundle", "x", "--url", "y"), "either --bundle or --url"),
        (("--url", "localhost:8000"), "begins with http:// or https://"),
        (("--bundle", "BUNDLE", "--columns", "id,colour"), "There is no column 'colour'"),
        (("--bundle", "BUNDLE", "--shard", "2/2"), "--shard is i/n"),
        (("--bundle", "BUNDLE", "--max-errors", "few"), "--max-errors is a number"),
    ],
)
def test_options_that_make_no_sense(
    folder: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    given = (folder if option == "BUNDLE" else option for option in options)
    done = score("--input", small(tmp_path), "--output", tmp_path / "out", *given)
    assert (done.code, said in done.stderr) == (2, True), done.stderr


def test_an_output_does_not_change_its_input(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("uno")
    for output in (tmp_path, tmp_path / "out"):
        done = score("--input", tmp_path, "--output", output, "--bundle", folder)
        assert (done.code, "output folder lies in an input folder" in done.stderr) == (2, True), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_errors_are_called_what_the_server_calls_them() -> None:
    kinds = InputError.__subclasses__()
    assert {kind.code for kind in kinds} < CATALOGUE.keys()
    assert len(kinds) == 10


def test_a_bundle_that_is_unsound_is_not_begun(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "fusion.onnx").write_bytes(b"")
    done = score("--input", small(tmp_path), "--output", tmp_path / "out", "--bundle", copy)
    assert (done.code, "fusion.onnx" in done.stderr) == (1, True)
    assert not (tmp_path / "out").exists()
