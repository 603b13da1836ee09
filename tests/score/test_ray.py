"""`trichord score --engine ray`: the answers of one process bit for bit; each row once, whoever is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from app.runtime.predictor import Predictor
from tests.ray_head import Head, ray_head
from tests.score.running import (
    ROWS,
    Ended,
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
)  # fmt: skip
from tests.score.test_formats import without_time

RUN = ("--threads", 1, "--batch-rows", 7)
EVERYTHING = ("--include-embeddings", "--explain", "--top-k", 3)
OF_RAY = "Set ray log level"  # the one line that Ray's C++ cannot keep to itself


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as found:
        yield found


def by_ray(*arguments: object, **environment: str) -> Ended:
    """With what Ray itself says taken out of what we say."""
    done = ended(started(*arguments, "--engine", "ray", **environment), within_s=240)
    return Ended(done.code, done.stdout, own_words(done))


def own_words(done: Ended) -> str:
    lines = done.stderr.splitlines()
    return "\n".join(line for line in lines if OF_RAY not in line and not line.startswith('{"rows"'))


def of_letters(output: Path) -> list[dict[str, Any]]:
    found = [{name: value for name, value in letter.items() if name != "at"} for letter in letters(output)]
    return sorted(found, key=lambda letter: int(letter["position"]))


def of_answers(output: Path) -> list[dict[str, Any]]:
    return sorted(map(without_time, answers(output)), key=lambda row: int(row["id"][1:]))


@pytest.mark.thorough
def test_a_ray_of_its_own_answers_bit_for_bit_as_this_process(
    folder: Path, manifest: Path, tmp_path: Path, predictor: Predictor
) -> None:
    given = ("--input", manifest, "--bundle", folder, *RUN, *EVERYTHING)
    assert score(*given, "--output", tmp_path / "local").code == 3
    done = by_ray(*given, "--output", tmp_path / "ray", "--workers", 2)
    assert (done.code, done.stderr) == (3, "")
    assert done.summary["this_time"]["concurrency"] == 2
    check(tmp_path / "ray", predictor)
    assert of_answers(tmp_path / "ray") == of_answers(tmp_path / "local")
    assert of_letters(tmp_path / "ray") == of_letters(tmp_path / "local")


@pytest.mark.thorough
def test_a_cluster_writes_the_same_parquet_in_order(
    head: Head, folder: Path, manifest: Path, tmp_path: Path
) -> None:
    given = ("--input", manifest, "--bundle", folder, "--format", "parquet", "--part-rows", 90, "--ordered")
    assert score(*given, *EVERYTHING, "--output", tmp_path / "local", *RUN).code == 3
    done = by_ray(*given, *EVERYTHING, "--output", tmp_path / "ray", *RUN, **head.environment)
    assert (done.code, done.stderr) == (3, "")
    found = [
        [
            pyarrow.parquet.read_table(part).drop("scored_at")
            for part in sorted(tmp_path.glob(f"{name}/part-*"))
        ]
        for name in ("local", "ray")
    ]
    assert len(found[0]) == 4
    assert found[0] == found[1], "the same rows in the same parts, and the same schema"


@pytest.mark.thorough
def test_a_cluster_scores_every_row_though_who_asks_it_is_killed(
    head: Head, folder: Path, manifest: Path, tmp_path: Path, predictor: Predictor
) -> None:
    given = ("--input", manifest, "--output", tmp_path / "out", "--bundle", folder, "--part-rows", 12, *RUN)
    for _ in range(2):
        process = started(*given, "--engine", "ray", "--rate", 20, **head.environment)
        assert wait_for(tmp_path / "out", 4, process), ended(process).stderr
        kill(process)
    done = by_ray(*given, **head.environment)
    assert (done.code, done.stderr) == (3, "")
    assert 0 < done.summary["this_time"]["finished_before"] < ROWS
    check(tmp_path / "out", predictor)


@pytest.mark.thorough
def test_a_killed_actor_is_replaced_and_its_rows_are_answered_once(
    head: Head, folder: Path, manifest: Path, tmp_path: Path, predictor: Predictor
) -> None:
    given = ("--input", manifest, "--output", tmp_path / "out", "--bundle", folder, "--part-rows", 12, *RUN)
    process = started(*given, "--engine", "ray", "--rate", 40, **head.environment)
    for _ in range(2):
        assert wait_for(tmp_path / "out", 4, process), ended(process).stderr
        while not (actors := head.workers("MapWorker")):  # the one that was killed before comes back
            time.sleep(0.1)
        os.kill(actors[0], signal.SIGKILL)
    done = ended(process, within_s=240)
    assert done.code == 3, done.stderr
    check(tmp_path / "out", predictor)


@pytest.mark.thorough
def test_rows_that_kill_every_actor_end_the_run_with_their_names(
    head: Head, folder: Path, tmp_path: Path
) -> None:
    """No row does that to this bundle, so actors are killed over a parcel that takes them seconds."""
    rows = small(tmp_path, 40_000)
    given = ("--input", rows, "--output", tmp_path / "out", "--bundle", folder, "--threads", 1)
    process = started(*given, "--engine", "ray", "--batch-rows", 20_000, "--workers", 1, **head.environment)
    killed: set[int] = set()
    while len(killed) < 12 and process.poll() is None:  # some may not have begun
        for actor in head.workers("MapWorker(MapBatches(_Actor)).submit"):
            time.sleep(1)
            with contextlib.suppress(ProcessLookupError):
                os.kill(actor, signal.SIGKILL)
                killed.add(actor)
        time.sleep(0.05)
    done = ended(process, within_s=120)
    assert done.code == 1
    assert "trichord: 4 actors died under the rows from 'r0' to 'r" in done.stderr
    assert (len(killed) >= 4, done.summary["scored"]) == (True, 0)


@pytest.mark.thorough
def test_an_interrupted_run_goes_on_with_what_is_left(
    head: Head, folder: Path, manifest: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    given = ("--input", manifest, "--output", output, "--bundle", folder, "--part-rows", 12, *RUN)
    for number in (signal.SIGINT, signal.SIGTERM):
        process = started(*given, "--engine", "ray", "--rate", 30, **head.environment)
        assert wait_for(output, 2, process), ended(process).stderr
        process.send_signal(number)
        done = ended(process, within_s=60)
        assert done.code == 130
        assert own_words(done) == "trichord: Interrupted. What is finished is kept: run it again to go on."
        assert sum(ids(output).values()) == done.summary["scored"] + done.summary["dead_letters"]
    assert by_ray(*given, "--max-errors", "10%", **head.environment).code == 3
    assert ids(output) == every_id()


@pytest.mark.thorough
def test_an_input_that_is_none_is_called_what_it_is_called_here(
    head: Head, folder: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("colour,size\nred,3\n")
    given = ("--input", rows, "--output", tmp_path / "out", "--bundle", folder)
    here = score(*given)
    there = by_ray(*given, **head.environment)
    assert (there.code, there.stderr) == (here.code, here.stderr.strip())
    assert there.code == 2


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (
            ("--threads", 64),
            2,
            "No machine of the Ray cluster has 64 processors for an actor. Lower --threads.",
        ),
        (("--device", "cuda"), 2, "cuda was asked for, but the Ray cluster has no GPU."),
        (("--device", "cuda:1"), 2, "With --engine ray, --device is auto, cpu or cuda"),
    ],
)
def test_what_the_cluster_does_not_have(
    head: Head, folder: Path, tmp_path: Path, options: tuple[object, ...], code: int, said: str
) -> None:
    given = ("--input", small(tmp_path), "--output", tmp_path / "out", "--bundle", folder)
    done = by_ray(*given, *options, **head.environment)
    assert (done.code, said in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_said_to_be_lost(folder: Path, tmp_path: Path) -> None:
    given = ("--input", small(tmp_path), "--output", tmp_path / "out", "--bundle", folder)
    done = by_ray(*given, RAY_ADDRESS="127.0.0.1:1")
    assert (done.code, done.stderr) == (
        1,
        "trichord: No Ray cluster at 127.0.0.1:1 lets us in. Start it, correct RAY_ADDRESS, or give its "
        "RAY_AUTH_TOKEN.",
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--url", "http://127.0.0.1:1"), "--engine ray runs a bundle: give --bundle instead of --url."),
        (
            ("--bundle", "BUNDLE", "--ray-address", "ray://127.0.0.1:1"),
            "Run this on a machine of the cluster",
        ),
    ],
)
def test_options_that_make_no_sense_with_ray(
    folder: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    given = [folder if option == "BUNDLE" else option for option in options]
    done = by_ray("--input", small(tmp_path), "--output", tmp_path / "out", *given)
    assert (done.code, said in done.stderr) == (2, True), done.stderr


def test_where_ray_is_not_installed_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from app.cli import app; app()"
    given = ("--input", small(tmp_path), "--output", tmp_path / "out", "--bundle", folder, "--engine", "ray")
    command = [sys.executable, "-c", code, "score", *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "trichord: --engine ray needs Ray: pip install 'trichord[score,ray]'.\n"
