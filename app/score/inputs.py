"""Which files are the input, how they are read, and what tells that they are still the same."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from app.rows import readers
from app.rows.errors import NotAnInput
from app.rows.records import Names, to_row
from app.rows.row import Row
from app.score.errors import NotAsked

_HASHED_WHOLE: Final = 2**30  # bytes, a second or two; of larger files the ends are, with the time of change
_END: Final = 2**20


@dataclass(frozen=True, slots=True)
class Input:
    """Rows from files in order."""

    files: tuple[Path, ...]
    names: Names = field(default_factory=Names)

    def __iter__(self) -> Iterator[Row]:
        """Raises NotAsked."""
        position = itertools.count()
        for number, file in enumerate(self.files):
            try:
                for record in readers.read(file, self.names):
                    of_all = replace(record, share=(number + record.share) / len(self.files))
                    yield to_row(of_all, self.names, position=next(position))
            except NotAnInput as error:
                raise NotAsked(str(error)) from error

    def fingerprint(self) -> list[dict[str, Any]]:
        """What must be the same when a run goes on; media that a manifest names are not looked at."""
        return [_of_folder(file) if file.is_dir() else _of_file(file) for file in self.files]


def open_input(given: list[str], names: Names) -> Input:
    """Files, a folder of files, a folder of shards; `*` and `{000..099}` name several. Raises NotAsked."""
    files = [file for one in given for file in _expanded(one)]
    for file in files:
        if not file.exists():
            raise NotAsked(f"There is no input '{file}'.")
        if not file.is_dir() and file.suffix.lower() not in readers.READERS:
            raise NotAsked(f"'{file}': an input is a folder or one of {', '.join(readers.READERS)}.")
    return Input(tuple(file.resolve() for file in files), names)


def _expanded(given: str) -> list[Path]:
    if span := re.search(r"\{(\d+)\.\.(\d+)\}", given):
        first, last = span.groups()
        numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        return [Path(given[: span.start()] + number + given[span.end() :]) for number in numbers]
    if glob.has_magic(given) and not Path(given).exists():
        found = sorted(glob.glob(given))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not found:
            raise NotAsked(f"No file is named like '{given}'.")
        return [Path(name) for name in found]
    path = Path(given)
    shards = sorted(path.glob("*.tar")) if path.is_dir() else []
    return shards or [path]


def _of_file(path: Path) -> dict[str, Any]:
    about = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if about.st_size <= _HASHED_WHOLE:
            return {
                "file": str(path),
                "size": about.st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
        digest.update(file.read(_END))
        file.seek(-_END, os.SEEK_END)
        digest.update(file.read(_END))
    ends = digest.hexdigest()
    return {"file": str(path), "size": about.st_size, "changed_ns": about.st_mtime_ns, "sha256_of_ends": ends}


def _of_folder(path: Path) -> dict[str, Any]:
    """Every file's name, size and time of change."""
    digest, count = hashlib.sha256(), 0
    for parent, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(parent, name)
            about = file.stat()
            said = f"{file.relative_to(path)}\0{about.st_size}\0{about.st_mtime_ns}\n"
            digest.update(said.encode(errors="surrogateescape"))
            count += 1
    return {"folder": str(path), "files": count, "sha256_of_list": digest.hexdigest()}
