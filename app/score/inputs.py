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
from app.rows.records import Names, Record, id_of, to_row
from app.rows.row import Row
from app.score.errors import NotAsked

_HASHED_WHOLE: Final = (
    2**30
)  # bytes of all files, a second or two; of others the ends, with the time of change
_END: Final = 2**20


@dataclass(frozen=True, slots=True)
class Found:
    """What stands for a row; only one that is wanted is looked into, and its base64 decoded."""

    position: int
    record: Record
    names: Names

    @property
    def id(self) -> str:
        return id_of(self.record, self.names, position=self.position)

    def row(self) -> Row:
        return to_row(self.record, self.names, position=self.position)


@dataclass(frozen=True, slots=True)
class Input:
    """Rows from files in order."""

    files: tuple[Path, ...]
    names: Names = field(default_factory=Names)

    def __iter__(self) -> Iterator[Row]:
        """Raises NotAsked."""
        return (found.row() for found in self.found())

    def found(self) -> Iterator[Found]:
        """Raises NotAsked."""
        position = itertools.count()
        sizes = [0 if file.is_dir() else file.stat().st_size for file in self.files]
        read, total = 0, max(1, sum(sizes))
        for file, size in zip(self.files, sizes, strict=True):
            try:
                for record in readers.read(file, self.names):
                    of_all = replace(record, share=(read + size * record.share) / total)
                    yield Found(next(position), of_all, self.names)
            except NotAnInput as error:
                raise NotAsked(str(error)) from error
            read += size

    def fingerprint(self) -> list[dict[str, Any]]:
        """What must be the same when a run goes on; media that a manifest names are not looked at."""
        left, said = _HASHED_WHOLE, []
        for file in self.files:
            if file.is_dir():
                said.append(_of_folder(file))
                continue
            size = file.stat().st_size
            is_whole = size <= left
            left -= size if is_whole else 0
            said.append(_of_file(file, is_whole=is_whole))
        return said


def open_input(given: list[str], names: Names) -> Input:
    """Files, a folder of files, a folder of shards; `*` and `{000..099}` name several. Raises NotAsked."""
    files = [file for one in given for file in _expanded(one)]
    for file in files:
        _check(file)
    return Input(tuple(file.resolve() for file in files), names)


def _check(file: Path) -> None:
    """Raises NotAsked."""
    if not file.exists():
        raise NotAsked(f"There is no input '{file}'.")
    if not file.is_dir() and file.suffix.lower() not in readers.READERS:
        raise NotAsked(f"'{file}': an input is a folder or one of {', '.join(readers.READERS)}.")
    if file.is_dir() and not readers.has_media(file):
        raise NotAsked(
            f"'{file}' holds no picture, text or recording. Name its manifests, such as '{file}/*.parquet'."
        )


def _expanded(given: str) -> list[Path]:
    if not given:
        raise NotAsked("An --input is empty. Name a file or a folder.")
    if span := re.search(r"\{(\d+)\.\.(\d+)\}", given):
        first, last = span.groups()
        if int(first) > int(last):
            raise NotAsked(f"'{given}' names no file: {first} comes after {last}.")
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


def _of_file(path: Path, *, is_whole: bool) -> dict[str, Any]:
    about = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if is_whole:
            return {
                "file": str(path),
                "size": about.st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
        digest.update(file.read(_END))
        file.seek(max(0, about.st_size - _END))
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
            about = _about(file)
            said = f"{file.relative_to(path)}\0{about.st_size}\0{about.st_mtime_ns}\n"
            digest.update(said.encode(errors="surrogateescape"))
            count += 1
    return {"folder": str(path), "files": count, "sha256_of_list": digest.hexdigest()}


def _about(path: Path) -> os.stat_result:
    """Of a link that leads nowhere, its own."""
    try:
        return path.stat()
    except OSError:
        return path.lstat()
