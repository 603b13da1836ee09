"""A job's rows on their way to disk: one a line, with an index of where each chunk lies.

Nothing is held but the line at hand, the index (a chunk is some tens of rows) and the ids' hashes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from app.jobs.errors import TooLarge
from app.jobs.job import Chunk
from app.rows.errors import Unreadable
from app.rows.readers import LINE_BYTES, SHOWN, parse_line
from app.rows.records import Names, Record, id_of, json_bytes, to_row
from app.rows.row import Row
from app.rows.seen import SeenIds

CHUNK_ROWS: Final = 64
_CHUNK_BYTES: Final = 2**20  # a chunk of more is closed, so that few large rows are in memory at once
_NOWHERE: Final = Path()


@dataclass(frozen=True, slots=True)
class Caps:
    """What one job may have."""

    rows: int
    bytes: int


class Spool:
    """Writes to an open file. A row that cannot be read takes its place like any other."""

    def __init__(self, file: IO[bytes], caps: Caps) -> None:
        self._file = file
        self._caps = caps
        self._names = Names()
        self._seen = SeenIds()
        self._held = bytearray()  # of the line that is coming in
        self._is_too_long = False
        self._chunks: list[Chunk] = []
        self._problems: dict[int, tuple[str, str]] = {}
        self._rows = self._size = 0
        self._first = self._offset = 0  # of the chunk that is open

    def write(self, piece: bytes) -> None:
        """JSONL as it comes, cut anywhere. Raises TooLarge."""
        *ended, rest = piece.split(b"\n")
        for part in ended:
            self._hold(part)
            self._take_line()
        self._hold(rest)

    def add(self, record: Record) -> None:
        """A row that another format brought. Raises TooLarge."""
        line = json.dumps(record.value, default=json_bytes).encode(errors="surrogatepass")
        self._put(line, record)

    def close(self) -> tuple[Chunk, ...]:
        """The index, when all of it is safe on the disk. Raises TooLarge."""
        self._take_line()
        self._close_chunk()
        self._file.flush()
        os.fsync(self._file.fileno())
        return tuple(self._chunks)

    def _hold(self, part: bytes) -> None:
        room = LINE_BYTES + 1 - len(self._held)
        self._held += part[:room]
        self._is_too_long = self._is_too_long or len(self._held) > LINE_BYTES

    def _take_line(self) -> None:
        line, is_too_long = bytes(self._held), self._is_too_long
        self._held.clear()
        self._is_too_long = False
        if line.strip():
            record = parse_line(line, _NOWHERE, 0)
            self._put(line[:SHOWN] if is_too_long else line, record)

    def _put(self, line: bytes, record: Record) -> None:
        position = self._rows
        is_new = self._seen.is_new(id_of(record, self._names, position=position))
        if record.problem is not None:
            self._problems[position] = (record.problem.code, record.problem.reason)
        elif not is_new:
            self._problems[position] = ("duplicate_id", "An earlier row has the same id.")
        self._file.write(line)
        self._file.write(b"\n")
        self._size += len(line) + 1
        self._rows += 1
        if self._rows > self._caps.rows:
            raise TooLarge(f"There are more than {self._caps.rows} rows. Make several jobs of them.")
        if self._size > self._caps.bytes:
            raise TooLarge(f"The rows have more than {self._caps.bytes} bytes. Make several jobs of them.")
        if self._rows - self._first >= CHUNK_ROWS or self._size - self._offset >= _CHUNK_BYTES:
            self._close_chunk()

    def _close_chunk(self) -> None:
        rows, size = self._rows - self._first, self._size - self._offset
        if rows:
            self._chunks.append(Chunk(self._first, rows, self._offset, size, self._problems))
        self._problems = {}
        self._first, self._offset = self._rows, self._size


def read_lines(path: Path, chunk: Chunk) -> list[bytes]:
    """The chunk's lines, one for each row. Raises OSError; FileNotFoundError also for another file."""
    with path.open("rb") as file:
        file.seek(chunk.offset)
        lines = file.read(chunk.size).split(b"\n")[:-1]
    if len(lines) != chunk.rows:
        raise FileNotFoundError(path)  # what is there is not what was indexed
    return lines


def rows_of(lines: list[bytes], chunk: Chunk, base: str | None) -> Iterator[Row]:
    """Rows as `trichord score` reads them; those of an upload, which has no base, name no files."""
    for place, line in enumerate(lines):
        position = chunk.first + place
        record = parse_line(line, Path(base or ""), 0)
        if position in chunk.problems:
            record = Record(record.value, record.base, 0, Unreadable(*chunk.problems[position]))
        yield to_row(record, Names(), position=position, may_name_files=base is not None)


def singly(lines: list[bytes], chunk: Chunk) -> list[Chunk]:
    """A chunk for each row."""
    pieces, offset = [], chunk.offset
    for place, line in enumerate(lines):
        position = chunk.first + place
        problems = {position: chunk.problems[position]} if position in chunk.problems else {}
        pieces.append(Chunk(position, 1, offset, len(line) + 1, problems))
        offset += len(line) + 1
    return pieces
