"""What of a run is finished, on disk, so that a kill at any moment loses no row and doubles none.

    DIR/part-00000.jsonl …     finished rows
    DIR/errors.jsonl           dead letters
    DIR/_state/run.json        what the run is: input, model, shape of the output
    DIR/_state/parts.jsonl     for each part, which rows it holds
    DIR/_state/open            the part that is being written

A row is finished in one of two ways. Either its part is renamed to its name: just before, the part's rows
are written to parts.jsonl, so that whatever part exists has a line there; a line without its part counts
for nothing, and a later line for the same part replaces it. Or its dead letter stands in errors.jsonl with
the line's end; what follows the last whole line is cut off when the run goes on. Nothing else is
remembered, so deleting errors.jsonl, or a part, makes its rows unfinished.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, Self

from app.rows.records import json_bytes
from app.score.errors import Changed, NotAsked
from app.score.positions import Positions, Run, from_runs, to_runs

STATE: Final = "_state"
ERRORS: Final = "errors.jsonl"
_PART: Final = re.compile(r"part-(\d{5,})\.(jsonl|csv|parquet)")
_WHAT: Final = {"input": "The input has", "model": "The model has", "shape": "The options of the output have"}


class Disk:
    """What the ledger does to files; tests put one here that dies in between."""

    def append(self, file: IO[bytes], line: bytes) -> None:
        file.write(line)
        file.flush()

    def sync(self, file: IO[bytes]) -> None:
        os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Atomic, and on the disk when it returns."""
        source.rename(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Ledger:
    """The record of one run in its output folder; a context manager that holds the folder for itself."""

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], *, restart: bool = False, disk: Disk | None = None
    ) -> None:
        """Begin a run, or go on with the same one. Raises NotAsked or Changed."""
        self._disk = disk or Disk()
        self._folder = folder
        self._state = folder / STATE
        self.finished = Positions()
        self.scored = self.dead = 0
        _make(self._state)
        with ExitStack() as closing:
            self._take_lock(closing.enter_context((self._state / "lock").open("wb")))
            if restart:
                self._clear()
            self._identify(identity)
            self._next_part = self._read_parts()
            self._read_errors()
            self._parts = closing.enter_context((self._state / "parts.jsonl").open("ab"))
            self._errors = closing.enter_context((folder / ERRORS).open("ab"))
            self._closing = closing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def open_part(self) -> Path:
        """Where the next part is written; `publish` gives it its name."""
        return self._state / "open"

    def publish(self, positions: Iterable[int], *, suffix: str) -> Path:
        """The open part, complete and synced, becomes the next one, and its rows are finished."""
        positions = list(positions)
        target = self._folder / f"part-{self._next_part:05}.{suffix}"
        line = {"part": self._next_part, "count": len(positions), "rows": to_runs(positions)}
        self._disk.append(self._parts, json.dumps(line).encode() + b"\n")
        self._disk.sync(self._parts)
        self._disk.sync(self._errors)
        self._disk.rename(self.open_part, target)
        self._next_part += 1
        self.scored += len(positions)
        return target

    def bury(self, letter: Mapping[str, Any]) -> None:
        """A dead letter, with the `position` of its row, which is finished by it."""
        line = json.dumps(letter, default=json_bytes).encode() + b"\n"
        self._disk.append(self._errors, line)
        self.dead += 1

    def sync(self) -> None:
        self._disk.sync(self._errors)

    # --- going on -----------------------------------------------------------------------------

    def _take_lock(self, lock: IO[bytes]) -> None:
        """The system lets go of it when the process ends, however it ends."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NotAsked(f"Another run writes to '{self._folder}'. Choose another --output.") from error

    def _clear(self) -> None:
        for file in [*_parts_in(self._folder), self._folder / ERRORS]:
            file.unlink(missing_ok=True)
        for file in self._state.iterdir():
            if file.name != "lock":
                file.unlink()

    def _identify(self, identity: Mapping[str, Any]) -> None:
        """The run's identity, written before anything else of it; else compared."""
        path = self._state / "run.json"
        wanted = json.loads(json.dumps(identity))
        if path.exists():
            found = json.loads(path.read_bytes())
            for entry, said in _WHAT.items():
                if found.get(entry) != wanted.get(entry):
                    raise Changed(
                        f"{said} changed since '{self._folder}' was begun. Choose another --output, "
                        "or begin again with --restart."
                    )
            return
        if _parts_in(self._folder) or (self._folder / ERRORS).exists():
            raise NotAsked(
                f"'{self._folder}' holds results but not the record of their run. Choose another "
                "--output, or replace them with --restart."
            )
        draft = self._state / "run.json.new"
        with draft.open("wb") as file:
            self._disk.append(file, json.dumps(wanted, indent=2).encode() + b"\n")
            self._disk.sync(file)
        self._disk.rename(draft, path)

    def _read_parts(self) -> int:
        """Which rows the parts hold; the number of the next part."""
        self.open_part.unlink(missing_ok=True)
        noted = {line["part"]: line for line in _whole_lines(self._state / "parts.jsonl", key="part")}
        after = 0
        for path in _parts_in(self._folder):
            number = _number(path)
            if number not in noted:
                raise NotAsked(
                    f"'{path}' was not written by this run. Move it away, or begin again with --restart."
                )
            runs: list[Run] = noted[number]["rows"]
            for position in from_runs(runs):
                self.finished.add(position)
            self.scored += noted[number]["count"]
            after = max(after, number + 1)
        return after

    def _read_errors(self) -> None:
        for letter in _whole_lines(self._folder / ERRORS, key="position"):
            self.finished.add(letter["position"])
            self.dead += 1


def _make(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotAsked(f"'{state.parent}' cannot be written to.") from error


def _parts_in(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if _PART.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    match = _PART.fullmatch(path.name)
    assert match is not None, "only parts are asked"
    return int(match[1])


def _whole_lines(path: Path, *, key: str) -> Iterator[dict[str, Any]]:
    """The lines of a log. From the first one on that was not wholly written, it is cut off."""
    if not path.exists():
        return
    whole = 0
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(entry, dict) or not isinstance(entry.get(key), int):
                break
            whole += len(line)
            yield entry
    if whole < path.stat().st_size:
        os.truncate(path, whole)
