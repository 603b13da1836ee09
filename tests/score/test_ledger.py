"""Whatever is interrupted, and when, each row ends exactly once in a part or among the dead letters."""

from __future__ import annotations

import errno
import json
import random
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.rows.row import Row
from app.score.engine import Failed, Load, Model, Outcome, Scored
from app.score.errors import Changed, NotAsked
from app.score.ledger import Disk, Ledger
from app.score.run import MostErrors, Output, score

IDENTITY: dict[str, Any] = {"input": {"sha256": "a"}, "model": {"digest": "b"}, "shape": {"format": "jsonl"}}
MODEL = Model("tiny", 1, "d", labels=3, is_multilabel=False, has_sets=False, most_bytes={})
ANSWER = {"label": "red", "probability": 0.5, "top": [], "modalities": [], "by_modality": {}, "warnings": []}


class Killed(BaseException):
    """As kill -9 would, at this very moment."""


class DyingDisk(Disk):
    """Does so many things, and dies in the middle of the next one."""

    def __init__(self, lasts: int, *, share: float) -> None:
        self._left = lasts
        self._share = share  # of a line that is still written, or: whether a rename still happens

    def _dies(self) -> bool:
        self._left -= 1
        return self._left < 0

    def append(self, file: IO[bytes], line: bytes) -> None:
        if self._dies():
            super().append(file, line[: int(len(line) * self._share)])
            raise Killed
        super().append(file, line)

    def sync(self, _file: IO[bytes]) -> None:  # to wait for a real disk would show nothing
        if self._dies():
            raise Killed

    def rename(self, source: Path, target: Path) -> None:
        if self._dies() and self._share < 0.5:
            raise Killed
        super().rename(source, target)
        if self._left < 0:
            raise Killed


class Lines:
    """A part that keeps no file open, because nobody closes it when it is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[str] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(json.dumps(row) + "\n")

    def close(self) -> None:
        self._path.write_text("".join(self._rows))


def row(position: int) -> Row:
    return Row(position, f"r{position}", {"id": f"r{position}"}, Path(), {})


def go_on(folder: Path, count: int, dead: set[int], seed: int, disk: Disk, part_rows: int) -> None:
    """What is left, in some order, until the end or the disk's."""
    with Ledger(folder, IDENTITY, disk=disk) as ledger:
        output = Output(ledger, Lines, "jsonl", MODEL, ("id",), part_rows)
        left = [position for position in range(count) if position not in ledger.finished]
        random.Random(seed).shuffle(left)  # noqa: S311
        for position in left:
            if position in dead:
                output.take(Failed(row(position), "decode", "invalid_image", "It is broken."))
            else:
                output.take(Scored(row(position), ANSWER))
        output.publish()


def found(folder: Path) -> Counter[str]:
    files = [*folder.glob("part-*.jsonl"), folder / "errors.jsonl"]
    return Counter(json.loads(line)["id"] for file in files for line in file.read_text().splitlines())


@settings(deadline=None, max_examples=100)
@given(
    count=st.integers(0, 25),
    dead=st.sets(st.integers(0, 24)),
    deaths=st.lists(st.tuples(st.integers(0, 25), st.floats(0, 1)), max_size=6),
    part_rows=st.integers(1, 8),
    seed=st.integers(0, 2**16),
)
def test_any_interleaving_of_work_and_kills_gives_each_row_once(
    count: int, dead: set[int], deaths: list[tuple[int, float]], part_rows: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "out")
        for lasts, share in deaths:
            try:
                go_on(folder, count, dead, seed, DyingDisk(lasts, share=share), part_rows)
            except Killed:
                continue
        go_on(folder, count, dead, seed, Disk(), part_rows)
        assert found(folder) == Counter(f"r{position}" for position in range(count))
        with Ledger(folder, IDENTITY) as ledger:
            assert (len(ledger.finished), ledger.dead) == (count, len(dead & set(range(count))))


class Full(Lines):
    """A part on a disk that is full when the third row comes, or at the end."""

    def __init__(self, path: Path, *, when: str) -> None:
        super().__init__(path)
        self._when = when

    def add(self, row: dict[str, Any]) -> None:
        super().add(row)
        if self._when == "add" and len(self._rows) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self._path.write_text("".join(self._rows)[:-5])
        if self._when == "close":
            raise OSError(errno.ENOSPC, "No space left on device")


class AllAtOnce:
    """An engine that has an answer for every row."""

    model = MODEL
    load = Load()

    def score(self, rows: Iterable[Row]) -> Generator[Outcome, None, None]:
        yield from (Scored(row, ANSWER) for row in rows)


@pytest.mark.parametrize("when", ["add", "close"])
def test_a_part_that_the_disk_has_no_room_for_is_done_again(tmp_path: Path, when: str) -> None:
    """Also where the run then ends in order, as it does."""
    with Ledger(tmp_path, IDENTITY) as ledger:
        output = Output(ledger, partial(Full, when=when), "jsonl", MODEL, ("id",), 5)
        with pytest.raises(OSError, match="No space left"):
            score(map(row, range(12)), AllAtOnce(), output, most_errors=MostErrors(), seen=lambda _: None)
        assert (output.unpublished, ledger.scored) == (0, 0)
    assert not list(tmp_path.glob("part-*"))
    go_on(tmp_path, 12, set(), 1, Disk(), 5)
    assert found(tmp_path) == Counter(f"r{position}" for position in range(12))


def test_a_deleted_part_or_dead_letter_is_done_again(tmp_path: Path) -> None:
    go_on(tmp_path, 20, {3}, 1, Disk(), 5)
    (tmp_path / "part-00001.jsonl").unlink()
    (tmp_path / "errors.jsonl").unlink()
    go_on(tmp_path, 20, set(), 1, Disk(), 5)
    assert found(tmp_path) == Counter(f"r{position}" for position in range(20))


@pytest.mark.parametrize(
    ("entry", "said"),
    [("input", "The input has"), ("model", "The model has"), ("shape", "The options of the output have")],
)
def test_another_run_is_refused(tmp_path: Path, entry: str, said: str) -> None:
    go_on(tmp_path, 3, set(), 1, Disk(), 5)
    changed = IDENTITY | {entry: {"other": 1}}
    with pytest.raises(Changed, match=f"{said} changed since"):
        Ledger(tmp_path, changed)
    with Ledger(tmp_path, changed, restart=True) as ledger:
        assert len(ledger.finished) == 0
    assert not list(tmp_path.glob("part-*"))


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with Ledger(tmp_path, IDENTITY), pytest.raises(NotAsked, match="Another run writes"):
        Ledger(tmp_path, IDENTITY)
    with Ledger(tmp_path, IDENTITY):
        pass


def test_results_of_somebody_else_are_not_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "part-00000.jsonl"
    theirs.write_text("{}\n")
    with pytest.raises(NotAsked, match="not the record of their run"):
        Ledger(tmp_path, IDENTITY)
    assert theirs.read_text() == "{}\n"


def test_a_part_that_the_run_did_not_write_is_refused(tmp_path: Path) -> None:
    go_on(tmp_path, 3, set(), 1, Disk(), 5)
    (tmp_path / "part-00007.jsonl").write_text("{}\n")
    with pytest.raises(NotAsked, match=r"part-00007\.jsonl' was not written by this run"):
        Ledger(tmp_path, IDENTITY)
