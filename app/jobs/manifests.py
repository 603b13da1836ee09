"""Manifests that callers may name, and the files that those name: all below one folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from app.jobs.errors import ManifestRefused
from app.jobs.spool import Spool
from app.rows.errors import NotAnInput, Unreadable
from app.rows.readers import READERS, read
from app.rows.records import Names
from app.rows.row import InFile, Row

_LINES = (".jsonl", ".ndjson")
_PIECE_BYTES = 2**20


class Manifests:
    """The folder of them."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def base(self, named: str) -> str:
        """The folder in which the rows of a manifest name files, below the folder of manifests.

        Raises ManifestRefused.
        """
        path = self._find(named)
        return (path if path.is_dir() else path.parent).relative_to(self._root).as_posix()

    def copy(self, named: str, spool: Spool) -> None:
        """Every row, so that whatever becomes of the manifest is no concern of the job.

        Raises ManifestRefused or TooLarge.
        """
        path = self._find(named)
        try:
            if path.suffix.lower() in _LINES and path.is_file():
                with path.open("rb") as file:
                    while piece := file.read(_PIECE_BYTES):
                        spool.write(piece)
            else:
                for record in read(path, Names()):
                    spool.add(record)
        except NotAnInput as error:
            reason = str(error).replace(str(path), named)  # where the folder lies is nobody's business
            raise ManifestRefused(reason, part="manifest") from error
        except (FileNotFoundError, PermissionError) as error:
            raise ManifestRefused("The manifest cannot be read.", part="manifest") from error

    def inside(self, row: Row) -> Row:
        """The row with its files' real places, or with the problem that one is not below the folder."""
        try:
            media = {
                name: replace(where, path=self._real(where.path)) if isinstance(where, InFile) else where
                for name, where in row.media.items()
            }
        except Unreadable as problem:
            return replace(row, media={}, problem=row.problem or problem)
        return replace(row, media=media)

    def _real(self, path: Path) -> Path:
        try:
            real = (self._root / path).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, links in a circle
            raise Unreadable("file_unreadable", f"The file '{path.name}' cannot be read.") from error
        if not real.is_relative_to(self._root):
            raise Unreadable("not_a_file", f"'{path.name}' does not lie below the folder of manifests.")
        return real

    def _find(self, named: str) -> Path:
        place = PurePosixPath(named)
        if not named or "\0" in named or place.is_absolute() or ".." in place.parts:
            raise ManifestRefused(
                "Name a manifest by its path below the folder of manifests.", part="manifest"
            )
        try:
            path = (self._root / place).resolve(strict=True)
        except (OSError, RuntimeError):
            path = None
        if path is None or not path.is_relative_to(self._root):
            raise ManifestRefused("There is no such manifest.", part="manifest")
        if not (path.is_dir() or (path.is_file() and path.suffix.lower() in READERS)):
            kinds = ", ".join(READERS)
            raise ManifestRefused(f"A manifest is a folder or a file of {kinds}.", part="manifest")
        return path
