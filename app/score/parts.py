"""A part of the output, in one of three formats: rows are added, then it is closed and on the disk.

Who renames it, and when, is the ledger's matter.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from app.rows.errors import NotAnInput
from app.rows.readers import arrow
from app.score.columns import arrow_schema
from app.score.errors import NotAsked

Format = Literal["jsonl", "csv", "parquet"]
_GROUP_ROWS: Final = 4096  # of a Parquet file, in memory until they are written


class Part(Protocol):
    """A file that is being written."""

    def add(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None:
        """Everything added is on the disk when it returns."""
        ...


OpenPart = Callable[[Path], Part]


def part_opener(format: Format, columns: Sequence[str], *, is_multilabel: bool) -> OpenPart:  # noqa: A002
    """How parts of this format begin. Raises NotAsked where Parquet cannot be written."""
    match format:
        case "jsonl":
            return _JsonLines
        case "csv":
            return lambda path: _Csv(path, columns)
        case "parquet":
            try:
                pyarrow, parquet = arrow()
            except NotAnInput as error:
                raise NotAsked(str(error)) from error
            schema = arrow_schema(pyarrow, columns, is_multilabel=is_multilabel)
            return lambda path: _Parquet(path, pyarrow, parquet, schema)


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._encoder = json.JSONEncoder(default=_said, allow_nan=False)

    def add(self, row: dict[str, Any]) -> None:
        there = {name: value for name, value in row.items() if value is not None}
        self._file.write(self._encoder.encode(there).encode() + b"\n")

    def close(self) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


class _Csv:
    """Lists and structs stand in their cells as JSON, modalities joined by `+`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.DictWriter(self._file, columns)
        self._rows.writeheader()

    def add(self, row: dict[str, Any]) -> None:
        self._rows.writerow({name: _cell(name, value) for name, value in row.items()})

    def close(self) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


class _Parquet:
    """zstd, with the schema of `columns.arrow_schema`, in groups of some thousand rows."""

    def __init__(self, path: Path, pyarrow: Any, parquet: Any, schema: Any) -> None:
        self._path = path
        self._pyarrow = pyarrow
        self._schema = schema
        self._writer = parquet.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(self._pyarrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        if self._rows:
            self._write()
        self._writer.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())


def _cell(name: str, value: Any) -> Any:
    match value:
        case list() if name == "modalities":
            return "+".join(value)
        case list() | dict():
            return json.dumps(value)
        case datetime():
            return _said(value)
    return value


def _said(value: object) -> str:
    assert isinstance(value, datetime), "the rest of a row is JSON"
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
