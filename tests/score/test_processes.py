"""`trichord score --bundle` in several processes: the answers of one, and each row once, whoever dies."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.bundle.folder import Bundle, read_bundle
from app.rows.errors import Unreadable
from app.rows.row import Row
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from app.score.engine import Failed, Scored
from app.score.errors import EngineLost
from app.score.local import Running
from app.score.processes import Opened, ProcessesEngine, several_processes
from tests.score.deadly import Deadly
from tests.score.fakes import text_row
from tests.score.running import (
    ROWS,
    answers,
    check,
    ended,
    every_id,
    finished,
    ids,
    kill,
    letters,
    score,
    started,
    wait_for,
)  # fmt: skip
from tests.score.test_formats import without_time

EVERYTHING = ("--include-embeddings", "--explain", "--top-k", 3, "--batch-rows", 7)


def children(pid: int) -> list[int]:
    """Workers of the command: the processes that it has spawned, less the one that minds their semaphores."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                said = Path(f"/proc/{child}/cmdline").read_bytes()
            except FileNotFoundError:
                continue
            if b"spawn_main" in said:
                found.append(int(child))
    return found


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_processes_write_what_one_does(folder: Path, manifest: Path, tmp_path: Path) -> None:
    given = ("--input", manifest, "--bundle", folder, *EVERYTHING)
    assert score(*given, "--output", tmp_path / "one", "--workers", 1).code == 3
    done = ended(started(*given, "--output", tmp_path / "two", "--workers", 2))
    assert (done.code, done.stderr) == (3, "")
    assert done.summary["this_time"]["concurrency"] == 2
    one, two = (list(map(without_time, answers(tmp_path / name))) for name in ("one", "two"))
    assert one == two, "in order, and to the last bit"
    told = [[letter | {"at": ""} for letter in letters(tmp_path / name)] for name in ("one", "two")]
    assert told[0] == told[1]


def test_threads_of_a_worker_change_nothing(
    folder: Path, manifest: Path, tmp_path: Path, predictor: Predictor
) -> None:
    given = ("--input", manifest, "--bundle", folder, "--output", tmp_path / "out")
    assert ended(started(*given, "--workers", 2, "--threads", 2)).code == 3
    check(tmp_path / "out", predictor)


def test_workers_that_are_killed_lose_nothing(
    folder: Path, manifest: Path, tmp_path: Path, predictor: Predictor
) -> None:
    output = tmp_path / "out"
    process = started(
        "--input", manifest, "--output", output, "--bundle", folder, "--workers", 2,
        "--part-rows", 12, "--batch-rows", 4, "--rate", 60,
    )  # fmt: skip
    for _ in range(3):
        assert wait_for(output, 4, process)
        os.kill(children(process.pid)[0], signal.SIGKILL)
    done = ended(process)
    assert done.code == 3
    assert done.stderr.count("its rows are begun again") in (1, 2, 3), "who has nothing may die unnoticed"
    check(output, predictor)


@pytest.mark.parametrize("is_begun", [False, True])
def test_an_interrupt_at_the_terminal_is_heard_by_one(
    folder: Path, manifest: Path, tmp_path: Path, *, is_begun: bool
) -> None:
    """It goes to all processes, also to those that are only loading."""
    given = ("--input", manifest, "--output", tmp_path / "out", "--bundle", folder, "--workers", 2)
    process = started(*given, "--rate", 50, "--part-rows", 12)
    until_s = time.monotonic() + 30
    while len(workers := children(process.pid)) < 2:
        assert time.monotonic() < until_s
        time.sleep(0.001)
    assert not is_begun or wait_for(tmp_path / "out", 1, process)
    for pid in (*workers, process.pid):
        os.kill(pid, signal.SIGINT)
    done = ended(process)
    said = "trichord: Interrupted. What is finished is kept: run it again to go on.\n"
    assert (done.code, done.stderr) == (130, said)
    assert not any(map(is_there, workers))


def test_workers_end_with_who_started_them(folder: Path, manifest: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    given = ("--input", manifest, "--output", output, "--bundle", folder, "--workers", 2, "--part-rows", 12)
    process = started(*given, "--rate", 50)
    assert wait_for(output, 2, process)
    workers = children(process.pid)
    assert len(workers) == 2
    kill(process)
    until_s = time.monotonic() + 30
    while any(map(is_there, workers)):
        assert time.monotonic() < until_s, "they live on without anybody to answer"
        time.sleep(0.02)
    before = finished(output)
    assert before < ROWS
    assert ended(started(*given)).code == 3
    assert ids(output) == every_id()


@pytest.mark.parametrize("killers", [(), (3, 4)])
def test_a_row_that_kills_costs_no_other(bundle: Bundle, killers: tuple[int, ...]) -> None:
    opened = Deadly(Path(), "", Running(threads=1, batch_rows=2), Device("cpu"), frozenset(killers))
    engine = ProcessesEngine(bundle, opened, 2)
    try:
        outcomes = list(engine.score(map(text_row, range(12))))
    finally:
        engine.close()
    assert [outcome.row for outcome in outcomes] == [text_row(position) for position in range(12)]
    dead = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert [(one.row.position, one.stage, one.code, one.attempts) for one in dead] == [
        (position, "predict", "internal", 2) for position in killers
    ]
    assert {one.reason for one in dead} <= {"The process that ran it was killed by signal 9, 2 times."}
    said = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
    assert [one.answer["position"] for one in said] == [one.row.position for one in said]


def test_no_more_rows_are_read_than_are_needed(bundle: Bundle) -> None:
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for position in range(10_000):
            read += 1
            yield text_row(position)

    opened = Deadly(Path(), "", Running(threads=1, batch_rows=4), Device("cpu"))
    engine = ProcessesEngine(bundle, opened, 2)
    try:
        with closing(engine.score(rows())) as outcomes:
            for number, _ in enumerate(outcomes):
                assert read <= number + 4 * 2 * 4
                if number == 400:
                    break
    finally:
        engine.close()


def test_what_cannot_be_opened_is_told(folder: Path, tmp_path: Path) -> None:
    bundle, copy = read_bundle(folder), shutil.copytree(folder, tmp_path / "copy")
    (copy / "fusion.onnx").write_bytes(b"")
    running = Running(threads=1)
    with (
        pytest.raises(EngineLost, match=r"fusion\.onnx"),
        several_processes(copy, bundle, running, device=Device("cpu"), workers=2),
    ):
        pass
    opened = Opened(folder, "of another bundle", running, Device("cpu"))
    engine = ProcessesEngine(bundle, opened, 2)
    try:
        with pytest.raises(EngineLost, match="was replaced while it was being loaded"):
            engine.wait_ready()
    finally:
        engine.close()


def test_a_worker_that_dies_as_it_loads_ends_the_run(folder: Path, bundle: Bundle) -> None:
    opened = Opened(folder, bundle.manifest.digest, Running(threads=1), Device("cpu"))
    engine = ProcessesEngine(bundle, opened, 2)
    try:
        os.kill(children(os.getpid())[-1], signal.SIGKILL)
        with pytest.raises(EngineLost, match=r"A process that loads the bundle was killed by signal 9\."):
            engine.wait_ready()
    finally:
        engine.close()


def test_a_problem_reaches_another_process_as_it_is() -> None:
    problem = Unreadable("file_not_found", "There is no file 'a'.")
    there = pickle.loads(pickle.dumps(problem))  # noqa: S301 - our own
    assert (there.code, there.reason, str(there)) == (problem.code, problem.reason, problem.reason)
