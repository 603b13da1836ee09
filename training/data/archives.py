"""Files out of the zip archives that the public sets are kept in."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from training.data.errors import DataCorrupt


def read_members(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Name to content, in the order of `names`, each once. Raises DataCorrupt naming the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in dict.fromkeys(names)}
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataCorrupt(f"{path.name} is not the complete archive. Fetch it again.") from error


def read_table(path: Path, name: str) -> list[dict[str, str]]:
    """Rows of a CSV file with a header inside the archive. Raises DataCorrupt."""
    body = read_members(path, [name])[name].decode("utf-8")
    return list(csv.DictReader(io.StringIO(body)))
