"""Jobs as the routes see them: taken in, looked up, ended. Files and database stay off the event loop."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from app.jobs.errors import JobsError, ManifestRefused, StoreFailed, TooMany
from app.jobs.folder import Folder
from app.jobs.job import Chunk, Job, Source, Wanted
from app.jobs.manifests import Manifests
from app.jobs.spool import CHUNK_ROWS, Caps, Spool
from app.jobs.store import Kind, Store

P = ParamSpec("P")
T = TypeVar("T")

_HELD_BYTES: Final = 2**18  # of an upload, before a thread is asked to write them


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may ask for. `keep_s` is how long a job is kept when it has ended."""

    caps: Caps
    unfinished: int
    keep_s: float


class Jobs:
    """The jobs in a folder. An async context manager: the database is open inside."""

    def __init__(self, folder: Folder, limits: Limits, *, manifests: Manifests | None) -> None:
        self.folder = folder
        self.limits = limits
        self.manifests = manifests
        self.added = asyncio.Event()  # a job, by this process
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="jobs")  # so that transactions take turns
        self._files = ThreadPoolExecutor(2, thread_name_prefix="spool")
        self._copies = ThreadPoolExecutor(1, thread_name_prefix="copy")  # minutes each: nobody else waits
        self._receiving = 0
        self._store: Store | None = None

    async def __aenter__(self) -> Jobs:
        self._store = await asyncio.get_running_loop().run_in_executor(self._threads, self.folder.open)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._store is not None, "left without being entered"
        await asyncio.get_running_loop().run_in_executor(self._threads, self._store.close)
        self._threads.shutdown()
        self._files.shutdown()
        self._copies.shutdown()

    async def ask(self, method: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the store, as `ask(Store.get, …)`. Raises what it raises."""
        store = self._store
        assert store is not None, "the database is open while the application serves"
        bound = getattr(store, method.__name__)
        result: T = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: bound(*args, **kwargs)
        )
        return result

    async def in_thread(self, function: Callable[[], T], *, is_long: bool = False) -> T:
        """For files. Raises StoreFailed where the disk is full, or gone."""
        pool = self._copies if is_long else self._files
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function)
        except OSError as error:
            raise StoreFailed("Jobs can be neither kept nor shown at present. Try again later.") from error

    async def room(self) -> None:
        """Raises TooMany, for who has not sent the rows yet. Those that are being sent here count, too."""
        if (await self.ask(Store.backlog)).jobs + self._receiving >= self.limits.unfinished:
            most = self.limits.unfinished
            raise TooMany(f"There are {most} unfinished jobs. Wait until one ends, or cancel one.")

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Receipt]:
        """Rows on their way in: what is not made a job of is gone afterwards. Raises StoreFailed."""
        job_id = f"job_{secrets.token_hex(12)}"
        path = self.folder.rows_of(job_id)
        file = await self.in_thread(lambda: path.open("xb", buffering=2**18))
        receipt = Receipt(self, job_id, Spool(file, self.limits.caps))
        self._receiving += 1
        try:
            yield receipt
        finally:
            self._receiving -= 1
            await self._finish_file(file.close, path, is_kept=receipt.is_kept)

    async def _finish_file(self, close: Callable[[], None], path: Path, *, is_kept: bool) -> None:
        def finish() -> None:
            try:
                close()
            except OSError:  # what was still to be written belonged to a job that is not to be
                if is_kept:
                    raise
            finally:
                if not is_kept:
                    path.unlink(missing_ok=True)

        await asyncio.shield(asyncio.ensure_future(self.in_thread(finish)))

    async def forget(self, job_id: str) -> None:
        """Delete a job and all that is kept of it. Others have their turn at the database meanwhile."""
        number = await self.ask(Store.delete, job_id)
        while number is not None and await self.ask(Store.clear, number):
            pass
        await self.in_thread(lambda: self.folder.forget(job_id))

    async def cancel(self, job_id: str) -> bool:
        """Whether it was unfinished."""
        was_unfinished = await self.ask(Store.cancel, job_id, at_s=time.time())
        if was_unfinished:
            await self.drop_rows(job_id)
        return was_unfinished

    async def drop_rows(self, job_id: str) -> None:
        """The job has ended, and needs them no more."""
        await self.in_thread(lambda: self.folder.forget(job_id))

    async def lines(
        self, job_id: str, kind: Kind, *, after: int = -1, most: int | None = None
    ) -> AsyncIterator[bytes]:
        """What is finished of a job behind that position, so many lines at most. Raises StoreFailed."""
        first, left = after - CHUNK_ROWS, most
        while left != 0 and (found := await self.ask(Store.output, job_id, kind, after=first)) is not None:
            first, body = found
            if first <= after or left is not None:
                lines = [line for line in body.splitlines(keepends=True) if _position(line) > after][:left]
                left = None if left is None else left - len(lines)
                body = b"".join(lines)
            if body:
                yield body


def _position(line: bytes) -> int:
    position: int = json.loads(line)["position"]
    return position


class Receipt:
    """The rows of a job that is not there yet."""

    def __init__(self, jobs: Jobs, job_id: str, spool: Spool) -> None:
        self.is_kept = False
        self._jobs = jobs
        self._job_id = job_id
        self._spool = spool
        self._held = bytearray()

    async def write(self, piece: bytes) -> None:
        """JSONL as it comes. Raises TooLarge or StoreFailed."""
        self._held += piece
        if len(self._held) >= _HELD_BYTES:
            await self._flush()

    async def copy(self, manifest: str) -> str:
        """Every row of a manifest; the folder in which they name files.

        Raises ManifestRefused, TooLarge or StoreFailed.
        """
        manifests = self._jobs.manifests
        if manifests is None:
            message = "This server reads no manifests: TRICHORD_MANIFESTS_DIR is not set. Upload the rows."
            raise ManifestRefused(message, part="manifest")
        base = await self._jobs.in_thread(lambda: manifests.base(manifest))
        await self._jobs.in_thread(lambda: manifests.copy(manifest, self._spool), is_long=True)
        return base

    async def submit(self, source: Source, wanted: Wanted) -> Job:
        """Raises TooMany, TooLarge or StoreFailed."""
        await self._flush()
        chunks = await self._jobs.in_thread(self._closed)
        self.is_kept = True  # also if we are cancelled while it is decided: a start removes what has no job
        try:
            job = await self._jobs.ask(
                Store.add,
                self._job_id,
                source,
                wanted,
                chunks,
                now_s=time.time(),
                most=self._jobs.limits.unfinished,
            )
        except JobsError:
            self.is_kept = False
            raise
        self.is_kept = job.id == self._job_id and job.is_unfinished
        self._jobs.added.set()
        return job

    def _closed(self) -> tuple[Chunk, ...]:
        chunks = self._spool.close()
        self._jobs.folder.sync()
        return chunks

    async def _flush(self) -> None:
        piece, self._held = bytes(self._held), bytearray()
        if piece:
            await self._jobs.in_thread(lambda: self._spool.write(piece))
