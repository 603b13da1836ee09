"""Rows that a user states in a table: JSONL, CSV or Parquet, one row per example.

Columns `id`, `label` and `split` must be there, and at least one of `image`, `text` and `audio`; `group` may
be; every other column is kept as a string, to slice metrics by. `image` and `audio` hold a path relative to
the table's folder, in Parquet also the file's bytes. A null or empty cell is an absent input, never a filled
one. Nothing is opened or judged here: that is check.py.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import pyarrow
import pyarrow.lib
import pyarrow.parquet
import pyarrow.types

from app.bundle.manifest import MODALITIES, Modality, Task
from training.data.errors import DataMissing, ManifestUnreadable

Body = Path | bytes  # where an input is, or the input itself

_REQUIRED: Final = ("id", "label", "split")
_KNOWN: Final = frozenset((*_REQUIRED, *MODALITIES, "group"))
_SEPARATOR: Final = ";"  # between the labels of one cell
_MOST_BYTES: Final = 2**31 - 1  # of a CSV's cell: a text may be as long as a model reads
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HALF: Final = "holds half a character, a lone surrogate. Write it again as UTF-8"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row, as it was written."""

    id: str
    split: str  # "" where none is said
    image: Body | None = None
    text: str | None = None
    audio: Body | None = None
    labels: tuple[str, ...] | None = None  # None where none is said; () says that no label applies
    group: str | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def holds(self, modality: Modality) -> bool:
        return getattr(self, modality) is not None

    def body(self, modality: Modality) -> Body | None:
        """The image or the recording; a text as its bytes."""
        if modality == "text":
            return None if self.text is None else self.text.encode("utf-8", "surrogatepass")
        return self.image if modality == "image" else self.audio


def read_manifest(path: Path, *, task: Task = "classification") -> tuple[Entry, ...]:
    """All rows, in order.

    Raises DataMissing, or ManifestUnreadable naming the row and the column. Rows are counted from 1, without
    a CSV's header and without blank lines.
    """
    if not path.is_file():
        raise DataMissing(f"{path} is not there. Name a manifest: JSONL, CSV or Parquet.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ManifestUnreadable(
            f"{path.name}: a manifest ends with one of {', '.join(_READERS)}. Rename or convert it."
        )
    folder = path.parent.resolve()
    entries = tuple(
        _Cells(cells, folder=folder, where=f"{path.name}, row {row}").entry(task)
        for row, cells in enumerate(reader(path), start=1)
    )
    if not entries:
        raise ManifestUnreadable(f"{path.name} holds no rows. Write one row for each example.")
    return entries


def read_body(body: Body) -> bytes:
    return body if isinstance(body, bytes) else body.read_bytes()


@dataclass(frozen=True, slots=True)
class _Cells:
    """One row while it is read; `where` begins every message."""

    cells: Mapping[str, Any]
    folder: Path
    where: str

    def entry(self, task: Task) -> Entry:
        for name in _REQUIRED:
            if name not in self.cells:
                raise ManifestUnreadable(f"{self.where}: there is no column '{name}'. Add it.")
        if not any(name in self.cells for name in MODALITIES):
            raise ManifestUnreadable(
                f"{self.where}: there is none of the columns {', '.join(MODALITIES)}. Add one."
            )
        if any(_SURROGATE.search(name) for name in self.cells):
            raise ManifestUnreadable(f"{self.where}: a column's name {_HALF}.")
        row_id = self._string("id")
        if row_id is None:
            raise self._wrong("id", "it is empty. Give every row a name of its own")
        return Entry(
            id=row_id,
            image=self._body("image"),
            text=self._text(),
            audio=self._body("audio"),
            labels=self._labels(task),
            split=self._string("split") or "",
            group=self._string("group"),
            columns={column: self._string(column) or "" for column in self.cells if column not in _KNOWN},
        )

    def _wrong(self, column: str, what: str) -> ManifestUnreadable:
        return ManifestUnreadable(f"{self.where}, column '{column}': {what}.")

    def _value(self, column: str) -> Any:
        """None for a null, an empty cell, and the not-a-number that tables in memory write for null."""
        value = self.cells.get(column)
        is_empty = value is None or value in ("", b"") or (isinstance(value, float) and math.isnan(value))
        return None if is_empty else value

    def _string(self, column: str) -> str | None:
        """Whole numbers and truth values are read as they are written; a list or bytes are not."""
        value = self._value(column)
        if value is None:
            return None
        if isinstance(value, str):
            return self._whole(column, value)
        if isinstance(value, bool | int) or (column not in _KNOWN and isinstance(value, float | Decimal)):
            return str(value)
        raise self._wrong(column, f"a {type(value).__name__} where a string belongs. Write a string")

    def _whole(self, column: str, value: str) -> str:
        """What no file can be called, and no report can hold."""
        if _SURROGATE.search(value):
            raise self._wrong(column, f"it {_HALF}")
        return value

    def _text(self) -> str | None:
        value = self._value("text")
        if value is None or isinstance(value, str):
            return value
        raise self._wrong("text", f"a {type(value).__name__} where a text belongs. Write a string")

    def _labels(self, task: Task) -> tuple[str, ...] | None:
        value = self._value("label")
        if task == "multilabel":
            if isinstance(value, str):
                value = [part.strip() for part in value.split(_SEPARATOR)]
            if isinstance(value, list):
                if all(isinstance(label, str) and label for label in value):
                    return tuple(dict.fromkeys(self._whole("label", label) for label in value))
                raise self._wrong("label", "a list holds something else than labels. Write strings")
        label = self._string("label")
        return None if label is None else (label,)

    def _body(self, column: Literal["image", "audio"]) -> Body | None:
        value = self._value(column)
        if value is None or isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            kind = type(value).__name__
            raise self._wrong(column, f"a {kind} where a path belongs. Write a path relative to the manifest")
        relative = PurePosixPath(self._whole(column, value))
        path = self.folder / relative
        if "\0" in value or relative.is_absolute() or not path.resolve().is_relative_to(self.folder):
            raise self._wrong(column, "the path leaves the manifest's folder. Put the file inside it")
        return path


def _read_jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(filter(str.strip, _decoded(lines, path)), start=1):
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ManifestUnreadable(
                    f"{path.name}, row {number}: it is not JSON. Mend the line."
                ) from error
            if not isinstance(cells, dict):
                raise ManifestUnreadable(f"{path.name}, row {number}: it is not a JSON object. Write one.")
            yield cells


def _read_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(_MOST_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(_decoded(lines, path), strict=True)
        try:
            header = next(rows, [])
            if len(set(header)) != len(header):
                raise ManifestUnreadable(f"{path.name}: its header names a column twice. Rename one.")
            for number, row in enumerate(filter(None, rows), start=1):
                if len(row) != len(header):
                    raise ManifestUnreadable(
                        f"{path.name}, row {number}: {len(row)} cells, but the header names {len(header)} "
                        "columns. Quote cells that hold a comma."
                    )
                yield dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise ManifestUnreadable(f"{path.name}, line {rows.line_num}: {error}. Mend the line.") from error


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    """Batch by batch, so that only the rows themselves are in memory twice."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_000):
                yield from _with_times_as_strings(batch).to_pylist()
    except (pyarrow.lib.ArrowException, OSError, UnicodeDecodeError) as error:  # by what is broken
        raise ManifestUnreadable(f"{path.name} is not a complete Parquet file. Write it again.") from error


def _with_times_as_strings(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """As they are kept; Python has no nanoseconds to hold those that pandas writes."""
    for at, column in enumerate(batch.schema):
        if pyarrow.types.is_temporal(column.type) and not pyarrow.types.is_interval(column.type):
            batch = batch.set_column(at, column.name, batch.column(at).cast(pyarrow.string()))
    return batch


def _decoded(lines: Iterator[str], path: Path) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise ManifestUnreadable(f"{path.name} is not UTF-8. Save it as UTF-8.") from error


_READERS: Final[Mapping[str, Callable[[Path], Iterator[Mapping[str, Any]]]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
