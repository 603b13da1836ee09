"""A bundle on disk: written manifest last and published by rename; read with every byte accounted for.

Nothing in a folder is trusted until its sha256 matches, and what was hashed is what is used: files are
read once, into memory, and never opened again. The manifest seals itself (see `manifest.sealed`), so a
changed byte anywhere is found and its file named.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.bundle.errors import BundleCorrupt, ManifestInvalid
from app.bundle.manifest import MANIFEST_FILE, FileRecord, Manifest, parse_manifest, sealed

_MAX_MANIFEST_BYTES = 16 * 2**20  # labels and metrics; a hundred times the largest real one


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle in memory."""

    manifest: Manifest
    files: dict[str, bytes]


def read_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises ManifestInvalid or BundleCorrupt, naming the file: missing, changed, extra, unreadable, or a link.
    """
    try:
        return _read_bundle(folder)
    except OSError as error:
        raise BundleCorrupt("it cannot be read. Check its permissions.", file=folder.name) from error


def _read_bundle(folder: Path) -> Bundle:
    if not (folder / MANIFEST_FILE).is_file():
        raise ManifestInvalid(
            "it is not there, so this folder is not a bundle.",
            file=f"{folder.name}/{MANIFEST_FILE}",
        )
    found = set(_plain_files(folder))
    manifest = parse_manifest(_read(folder, MANIFEST_FILE, limit=_MAX_MANIFEST_BYTES))
    for extra in sorted(found - manifest.files.keys() - {MANIFEST_FILE}):
        raise BundleCorrupt("it is not in the manifest. Remove it, or export the bundle again.", file=extra)
    for lost in sorted(manifest.files.keys() - found):
        raise BundleCorrupt("it is in the manifest but not in the folder. Copy the bundle again.", file=lost)
    files = {path: _read_recorded(folder, path, record) for path, record in manifest.files.items()}
    return Bundle(manifest=manifest, files=files)


def file_records(files: Mapping[str, bytes]) -> dict[str, FileRecord]:
    """What a manifest says about each of these files."""
    return {
        path: FileRecord(sha256=hashlib.sha256(body).hexdigest(), size=len(body))
        for path, body in sorted(files.items())
    }


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write the files and then, as the sign that all are there, the manifest."""
    assert manifest.files == file_records(files), "the manifest describes other files than these"
    for path, body in files.items():
        _write(folder / path, body)
    _write(folder / MANIFEST_FILE, sealed(manifest))


@contextmanager
def staged(destination: Path) -> Iterator[Path]:
    """A folder to write a bundle into; it becomes `destination` if the block ends well and vanishes if not.

    A published bundle is immutable: raises FileExistsError when `destination` is there.
    """
    if destination.exists():
        raise FileExistsError(
            f"{destination} exists. A published bundle never changes: choose another version."
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder = destination.parent / f".{destination.name}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
        folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plain_files(folder: Path) -> Iterator[str]:
    for parent, directories, names in os.walk(folder):
        for name in [*directories, *names]:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            shown = path.relative_to(folder).as_posix()
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise BundleCorrupt("it is a link or a device. A bundle holds plain files only.", file=shown)
            if stat.S_ISREG(mode):
                yield shown


def _read_recorded(folder: Path, path: str, record: FileRecord) -> bytes:
    body = _read(folder, path, limit=record.size)
    if len(body) != record.size or hashlib.sha256(body).hexdigest() != record.sha256:
        raise BundleCorrupt("its content differs from the manifest. Copy the bundle again.", file=path)
    return body


def _read(folder: Path, path: str, *, limit: int) -> bytes:
    """At most one byte more than `limit`. Refuses links, also one that appeared since the listing."""
    try:
        descriptor = os.open(folder / path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise BundleCorrupt(
            "it cannot be opened as a plain file. Check its permissions.", file=path
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_nlink != 1:
            raise BundleCorrupt(
                "it is a hard link, so its content can change from outside. Copy it.", file=path
            )
        return file.read(limit + 1)


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
