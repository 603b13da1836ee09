"""A folder whose files are memory, if there is such a place: a container's disk may be read-only."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Final

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_PREFIX: Final = "trichord-"
_LOCK: Final = "lock"


@contextmanager
def memory_folder(place: Path = _SHARED_MEMORY) -> Iterator[Path]:
    """A new one, removed when the block ends. What killed processes left behind goes first."""
    if not os.access(place, os.W_OK):
        place = Path(gettempdir())
    for left in place.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):  # it is another user's, or its process lives
            _remove(left)
    with TemporaryDirectory(prefix=_PREFIX, dir=place) as name:
        folder = Path(name)
        with (folder / f"{_LOCK}.new").open("w") as lock:  # held by every process that is forked from here
            fcntl.flock(lock, fcntl.LOCK_EX)
            Path(lock.name).rename(folder / _LOCK)  # never seen without its owner
            yield folder


def _remove(lock: Path) -> None:
    """The folder of the lock. Raises OSError if somebody holds it."""
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.parent)
