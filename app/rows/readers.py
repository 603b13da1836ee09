"""Records from files, one after the other: JSONL, CSV, Parquet, a folder of files, tar shards.

Nothing is held but the record at hand (of Parquet: some rows), so any number of rows fits in memory; of a
folder, the names are. A record that cannot be read says so and the next one follows. Media are not read here.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from app.bundle.manifest import Modality
from app.rows.errors import NotAnInput, Unreadable
from app.rows.records import Names, Record

Reader = Callable[[Path, Names], Iterator[Record]]

SUFFIXES: Final[dict[str, Modality]] = {
    ".jpg": "image", ".jpeg": "image", ".png": "image", ".webp": "image", ".txt": "text",
    ".wav": "audio", ".flac": "audio", ".ogg": "audio", ".mp3": "audio",
}  # fmt: skip
LINE_BYTES: Final = 64 * 2**20  # the largest request of a row, 32 MiB, in base64 and then some
SHOWN: Final = 10_000  # characters of a broken line that its dead letter repeats
_PARQUET_ROWS: Final = 64  # in memory at once: their bytes may be in them


def read_jsonl(path: Path, _names: Names) -> Iterator[Record]:
    """A JSON object a line; blank lines are passed over."""
    base, size = path.parent, path.stat().st_size
    with path.open("rb") as file:
        read = 0
        for line in _lines(file):
            read += len(line)
            if line.isspace():
                continue
            share = min(1, read / size)
            yield parse_line(line, base, share)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines; of one that is too long, one byte more than allowed, and the rest is passed over."""
    while line := file.readline(LINE_BYTES + 1):
        rest = line
        while len(rest) > LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES + 1)
        yield line


def parse_line(line: bytes, base: Path, share: float) -> Record:
    """Of one that is too long, one byte more than LINE_BYTES is enough."""

    def broken(code: str, reason: str) -> Record:
        said = line[:SHOWN].decode(errors="replace").rstrip("\r\n")
        return Record(said, base, share, Unreadable(code, reason))

    if len(line) > LINE_BYTES:
        return broken("line_too_long", f"The line is longer than {LINE_BYTES // 2**20} MiB.")
    try:
        return Record(json.loads(line.decode("utf-8-sig")), base, share)
    except UnicodeDecodeError:
        return broken("invalid_json", "The line is not UTF-8.")
    except (ValueError, RecursionError):
        return broken("invalid_json", "The line is not JSON.")


def read_csv(path: Path, names: Names) -> Iterator[Record]:
    """A header, then rows; an empty cell is an absent input."""
    csv.field_size_limit(LINE_BYTES)
    base, size = path.parent, path.stat().st_size
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        read = 0

        def counted() -> Iterator[str]:
            nonlocal read
            for line in file:
                read += len(line)
                yield line

        cells = csv.reader(counted(), strict=True)
        header = _header(cells, path, names)
        while True:
            try:
                row = next(cells)
            except StopIteration:
                return
            except csv.Error as error:
                problem = Unreadable("invalid_csv", f"The row is not CSV: {error}.")
                yield Record(None, base, min(1, read / max(1, size)), problem)
                continue
            if row:
                yield _row_of_cells(header, row, names, base, min(1, read / max(1, size)))


def _header(cells: Iterator[list[str]], path: Path, names: Names) -> list[str]:
    try:
        header = next(cells, [])
    except csv.Error as error:
        raise NotAnInput(f"'{path}': the header is not CSV: {error}.") from error
    if not set(header) & set(names.all[1:]):
        raise NotAnInput(f"'{path}': the header names none of the columns {', '.join(names.all[1:])}.")
    return header


def _row_of_cells(header: list[str], row: list[str], names: Names, base: Path, share: float) -> Record:
    value: dict[str, Any] = {name: cell for name, cell in zip(header, row, strict=False) if cell}
    if len(row) == len(header):
        return Record(value, base, share)
    # Nobody knows whose a cell is, so all stand where one input would: no dead letter may be read as a row.
    ids = {name: value[name] for name in (names.id, "custom_id") if name in value}
    value = ids | {next(name for name in header if name in names.all[1:]): row}
    reason = f"The row has {len(row)} cells, the header {len(header)}."
    return Record(value, base, share, Unreadable("invalid_csv", reason))


def read_parquet(path: Path, names: Names) -> Iterator[Record]:
    """The named columns; media as bytes, as names of files, or as structs of `bytes` and `path`."""
    pyarrow, parquet = arrow()
    try:
        with parquet.ParquetFile(path) as file:
            known = [name for name in file.schema_arrow.names if name in (*names.all, "custom_id")]
            if not set(known) & set(names.all[1:]):
                raise NotAnInput(f"'{path}': it has none of the columns {', '.join(names.all[1:])}.")
            total, read = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=known):
                for value in batch.to_pylist():
                    read += 1
                    there = {name: _cell(cell) for name, cell in value.items() if cell is not None}
                    yield Record(there, path.parent, read / total)
    except (pyarrow.lib.ArrowException, OSError, ValueError, OverflowError) as error:  # by what is broken
        raise NotAnInput(f"'{path}' is not readable as Parquet.") from error


def _cell(cell: object) -> object:
    """What JSON and bytes can say of it; structs of `bytes` and `path` without the one that is null.

    A date, a decimal or a UUID is its text, as it would be in CSV.
    """
    match cell:
        case dict():
            return {str(key): _cell(part) for key, part in cell.items() if part is not None}
        case list():
            return [_cell(part) for part in cell]
        case None | bool() | int() | float() | str() | bytes():
            return cell
    return str(cell)


def arrow() -> tuple[Any, Any]:
    """pyarrow and its module for Parquet. Raises NotAnInput."""
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise NotAnInput("Parquet needs pyarrow: pip install 'trichord[score]'.") from error
    return pyarrow, pyarrow.parquet


def read_folder(path: Path, _names: Names) -> Iterator[Record]:
    """Files by their stem: its path in the folder is the id, what follows the last dot the modality."""
    for parent, folders, files in os.walk(path):
        folders.sort()
        by_stem: dict[str, list[str]] = {}
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES:
                by_stem.setdefault(Path(name).stem, []).append(name)
        inside = Path(parent).relative_to(path)
        for stem, names in by_stem.items():
            members = {name: {"file": (inside / name).as_posix()} for name in names}
            yield _member_record((inside / stem).as_posix(), members, path, share=0)


def has_media(folder: Path) -> bool:
    """Whether read_folder would find a row."""
    return any(Path(name).suffix.lower() in SUFFIXES for _, _, files in os.walk(folder) for name in files)


def read_shard(path: Path, _names: Names) -> Iterator[Record]:
    """A plain tar in WebDataset's order: the members of a row follow each other: `a.jpg`, `a.txt`, `a.wav`.

    Members are named by their place in the tar, so that engines read them in parallel.
    """
    size = path.stat().st_size
    members: dict[str, Any] = {}
    key: str | None = None
    share = 0.0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := _next_member(tar, file)) is not None:
                found, suffix = _key(member)
                if found is None:
                    continue
                if found != key and members and key is not None:
                    yield _member_record(key, members, path.parent, share)
                    members = {}
                key, share = found, min(1, (member.offset_data + member.size) / size)
                if suffix in SUFFIXES:
                    members[member.name] = {
                        "file": path.name,
                        "offset": member.offset_data,
                        "size": member.size,
                    }
    except (tarfile.TarError, ValueError, OverflowError):  # the latter two by numbers in a header
        if key is not None and members:
            yield _member_record(key, members, path.parent, share)
        problem = Unreadable("shard_broken", f"The shard cannot be read on from about {share:.0%} of it.")
        yield Record({"shard": path.name}, path.parent, 1, problem)
        return
    if key is not None and members:
        yield _member_record(key, members, path.parent, 1)


def _next_member(tar: tarfile.TarFile, file: IO[bytes]) -> tarfile.TarInfo | None:
    """None at the end. Raises tarfile.ReadError also where the file ends before its archive does."""
    try:
        member = tar.next()
    except OSError as error:
        if error.errno == errno.EINVAL:  # where the next member should be, no file can be
            raise tarfile.ReadError("a size that cannot be") from error
        raise
    tar.members = []  # type: ignore[attr-defined]  # else every member's header stays in memory
    if member is None:
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no block of zeros at the end")
    return member


def _key(member: tarfile.TarInfo) -> tuple[str | None, str]:
    """`a/b.left.jpg` is of row `a/b` and, by its last suffix, an image; a README or `._b.jpg` is of none."""
    folder, _, file = member.name.rpartition("/")
    stem, _, rest = file.partition(".")
    if not (member.isfile() and stem and rest):
        return None, ""
    return (f"{folder}/{stem}" if folder else stem), Path(file).suffix.lower()


def _member_record(row_id: str, members: dict[str, Any], base: Path, share: float) -> Record:
    found: dict[Modality, list[Any]] = {}
    for name, where in members.items():
        found.setdefault(SUFFIXES[Path(name).suffix.lower()], []).append(where)
    value = {"id": row_id} | {name: files if len(files) > 1 else files[0] for name, files in found.items()}
    twice = next((name for name, files in found.items() if len(files) > 1), None)
    if twice is None:
        return Record(value, base, share)
    return Record(value, base, share, Unreadable("ambiguous_row", f"The row has more than one {twice} file."))


READERS: Final[dict[str, Reader]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".tar": read_shard,
}


def read(path: Path, names: Names) -> Iterator[Record]:
    """By the kind that the name tells. Raises NotAnInput."""
    reader = read_folder if path.is_dir() else READERS[path.suffix.lower()]
    return reader(path, names)
