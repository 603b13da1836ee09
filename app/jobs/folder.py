"""The folder of jobs: the database, a file of rows for each unfinished job, and the lock of its one server.

jobs.db                what is known of jobs, and their answers
rows/<id>.jsonl        the rows, as they came or as they were read from a manifest
lock                   held by the server that owns the folder
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.jobs.errors import FolderTaken
from app.jobs.sqlite import SqliteStore

_HAND_OVER_S: Final = 5.0  # workers of a server that was killed take a moment to notice
_LOOK_S: Final = 0.05


class Folder:
    """Where things are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = path / "rows"

    def open(self) -> SqliteStore:
        """Raises StoreFailed."""
        return SqliteStore(self._path / "jobs.db")

    def rows_of(self, job_id: str) -> Path:
        return self._rows / f"{job_id}.jsonl"

    def forget(self, job_id: str) -> None:
        """The rows of a job that needs them no more."""
        self.rows_of(job_id).unlink(missing_ok=True)

    def make(self) -> None:
        """What people send is for nobody else's eyes."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._rows.mkdir(mode=0o700, exist_ok=True)

    def sync(self) -> None:
        """The names of files, as their bytes, outlive a power cut."""
        descriptor = os.open(self._rows, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self) -> int:
        """A descriptor that holds the folder until it, and every copy that a fork made, is closed."""
        descriptor = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up_s = time.monotonic() + _HAND_OVER_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= give_up_s:
                    os.close(descriptor)
                    raise
                time.sleep(_LOOK_S)
            else:
                return descriptor

    def keep_only(self, job_ids: Iterable[str]) -> None:
        """Remove what uploads left that a kill ended."""
        known = {self.rows_of(job_id) for job_id in job_ids}
        for path in self._rows.iterdir():
            if path not in known:
                path.unlink()


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """The folder is ours while the block lasts, and is put in order first. Before any process is forked.

    Raises FolderTaken, or StoreFailed if the database is broken.
    """
    folder = Folder(path)
    try:
        folder.make()
        descriptor = folder.lock()
    except BlockingIOError as error:
        raise FolderTaken(
            f"Another server owns the jobs in {path}. Choose another TRICHORD_JOBS_DIR."
        ) from error
    except OSError as error:
        raise FolderTaken(f"{path} cannot be written to. Choose another TRICHORD_JOBS_DIR.") from error
    try:
        store = folder.open()
        store.release_all()
        folder.keep_only(store.ids())
        store.close()
        yield
    finally:
        os.close(descriptor)
