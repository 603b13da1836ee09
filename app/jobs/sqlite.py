"""Jobs in SQLite: one file, write-ahead log, one writer at a time, no server to run.

A chunk's results, its dead letters and the mark that it is done are written in one transaction that holds
only while the chunk's token is that of the claim: so a row is answered once, whoever is killed when.
"""

from __future__ import annotations

import functools
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from app.jobs.errors import JobNotFound, StoreFailed, TooMany
from app.jobs.job import Chunk, Claim, Job, Outcome, Source, State, Wanted
from app.jobs.store import Backlog, Kind

_BUSY_S: Final = 5.0  # another process writes; its transactions take milliseconds
_STEP: Final = 64  # chunks deleted in one transaction, so that others get their turn
_PAGES: Final = 1024  # given back to the disk at once, likewise
_FORMAT: Final = 1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL, name TEXT, manifest TEXT, base TEXT, idempotency_key TEXT,
    model TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, top_k INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT,
    total INTEGER NOT NULL, scored INTEGER NOT NULL, failed INTEGER NOT NULL,
    open_chunks INTEGER NOT NULL,
    created_s REAL NOT NULL, started_s REAL, finished_s REAL
);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_by_key ON jobs (owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS unfinished_jobs ON jobs (seq) WHERE state IN ('queued', 'running');
CREATE TABLE IF NOT EXISTS chunks (
    job INTEGER NOT NULL, first INTEGER NOT NULL, rows INTEGER NOT NULL,
    offset INTEGER NOT NULL, size INTEGER NOT NULL, problems TEXT NOT NULL,
    is_done INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
    token INTEGER, lease_until_s REAL,
    PRIMARY KEY (job, first)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS open_chunks ON chunks (job, first) WHERE is_done = 0;
CREATE TABLE IF NOT EXISTS outputs (
    job INTEGER NOT NULL, first INTEGER NOT NULL, results BLOB NOT NULL, letters BLOB NOT NULL,
    UNIQUE (job, first)
);
"""
_COLUMNS: Final = (
    "jobs.id, jobs.seq, owner, name, manifest, base, idempotency_key, model, version, digest, top_k, state, "
    "reason, total, scored, failed, created_s, started_s, finished_s"
)
_UNFINISHED: Final = "state IN ('queued', 'running')"
# Jobs from the oldest on, and of each its chunks in order, until one is free. SQLite's planner would rather
# collect and sort every chunk that is open: hundreds of milliseconds for a dozen large jobs.
NEXT: Final = f"""
SELECT {_COLUMNS}, chunks.job, first, rows, offset, size, problems, attempts
FROM jobs INDEXED BY unfinished_jobs CROSS JOIN chunks INDEXED BY open_chunks ON chunks.job = jobs.seq
WHERE {_UNFINISHED} AND is_done = 0 AND (token IS NULL OR lease_until_s <= ?)
ORDER BY jobs.seq, first LIMIT 1
"""  # noqa: S608 - of our own constants
_HELD: Final = "job = (SELECT seq FROM jobs WHERE id = ?) AND first = ? AND token = ? AND is_done = 0"

P = ParamSpec("P")
T = TypeVar("T")


def _told(method: Callable[Concatenate[SqliteStore, P], T]) -> Callable[Concatenate[SqliteStore, P], T]:
    """What the database says goes to the log with the error; the caller hears that it failed."""

    @functools.wraps(method)
    def tell(self: SqliteStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            raise StoreFailed("Jobs can be neither kept nor shown at present. Try again later.") from error

    return tell


class SqliteStore:
    """See Store. To be used by one thread at a time."""

    @_told
    def __init__(self, path: Path) -> None:
        """Raises StoreFailed."""
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # an accepted job outlives a power cut
        [version] = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _FORMAT):
            raise StoreFailed(f"The jobs are of format {version}, and this server reads {_FORMAT}.")
        with self._writing():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_FORMAT}")

    # --- jobs -------------------------------------------------------------------------------

    @_told
    def add(
        self, job_id: str, source: Source, wanted: Wanted, chunks: Sequence[Chunk], *, now_s: float, most: int
    ) -> Job:
        with self._writing():
            if source.idempotency_key is not None:
                known = self.of_key(source.idempotency_key, owner=source.owner)
                if known is not None:
                    return known
            if self.backlog().jobs >= most:
                raise TooMany(f"There are {most} unfinished jobs. Wait until one ends, or cancel one.")
            total = sum(chunk.rows for chunk in chunks)
            state = State.QUEUED if chunks else State.COMPLETED
            seq = self._db.execute(
                "INSERT INTO jobs (id, owner, name, manifest, base, idempotency_key, model, version, digest, "
                "top_k, state, total, scored, failed, open_chunks, created_s, finished_s) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?)",
                (
                    job_id, source.owner, source.name, source.manifest, source.base, source.idempotency_key,
                    wanted.model, wanted.version, wanted.digest, wanted.top_k, state, total, len(chunks),
                    now_s, None if chunks else now_s,
                ),
            ).lastrowid  # fmt: skip
            self._insert_chunks(seq, chunks)
            return self.get(job_id, owner=source.owner)

    @_told
    def get(self, job_id: str, *, owner: str) -> Job:
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE id = ? AND owner = ?",  # noqa: S608
            (job_id, owner),
        ).fetchone()
        if found is None:
            raise JobNotFound("There is no such job. GET /v1/jobs lists yours.")
        return _job(found)

    @_told
    def of_key(self, key: str, *, owner: str) -> Job | None:
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND idempotency_key = ?",  # noqa: S608
            (owner, key),
        ).fetchone()
        return None if found is None else _job(found)

    @_told
    def latest(self, *, owner: str, before: int | None, most: int) -> list[Job]:
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND (? IS NULL OR seq < ?) "  # noqa: S608
            "ORDER BY seq DESC LIMIT ?",
            (owner, before, before, most),
        )
        return [_job(row) for row in found]

    @_told
    def ids(self) -> set[str]:
        return {job_id for (job_id,) in self._db.execute("SELECT id FROM jobs")}

    @_told
    def backlog(self) -> Backlog:
        [jobs, rows] = self._db.execute(
            f"SELECT count(*), coalesce(sum(total - scored - failed), 0) FROM jobs WHERE {_UNFINISHED}"  # noqa: S608
        ).fetchone()
        return Backlog(jobs, rows)

    @_told
    def fail(self, job_id: str, reason: str, *, at_s: float) -> bool:
        return self._end(job_id, State.FAILED, reason, at_s)

    @_told
    def cancel(self, job_id: str, *, at_s: float) -> bool:
        return self._end(job_id, State.CANCELLED, None, at_s)

    @_told
    def delete(self, job_id: str) -> int | None:
        with self._writing():
            found = self._db.execute("SELECT seq FROM jobs WHERE id = ?", (job_id,)).fetchone()
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        return None if found is None else found[0]

    @_told
    def clear(self, number: int) -> bool:
        for table in ("outputs", "chunks"):
            with self._writing():
                deleted = self._db.execute(
                    f"DELETE FROM {table} WHERE job = ? AND first IN "  # noqa: S608
                    f"(SELECT first FROM {table} WHERE job = ? LIMIT {_STEP})",
                    (number, number),
                ).rowcount
            if deleted:
                return True
        before = self._free_pages()
        self._db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
        return 0 < self._free_pages() < before

    @_told
    def finished_before(self, at_s: float) -> list[str]:
        found = self._db.execute(
            f"SELECT id FROM jobs WHERE NOT {_UNFINISHED} AND finished_s < ?",  # noqa: S608
            (at_s,),
        )
        return [job_id for (job_id,) in found]

    @_told
    def output(self, job_id: str, kind: Kind, *, after: int) -> tuple[int, bytes] | None:
        found: tuple[int, bytes] | None = self._db.execute(
            f"SELECT first, {kind} FROM outputs WHERE job = (SELECT seq FROM jobs WHERE id = ?) "  # noqa: S608
            f"AND first > ? AND length({kind}) > 0 ORDER BY first LIMIT 1",
            (job_id, after),
        ).fetchone()
        return found

    # --- chunks -----------------------------------------------------------------------------

    @_told
    def claim(self, *, now_s: float, lease_s: float, at_s: float) -> Claim | None:
        if self._db.execute(NEXT, (now_s,)).fetchone() is None:
            return None  # without the lock that writers wait for
        with self._writing():
            found = self._db.execute(NEXT, (now_s,)).fetchone()
            if found is None:
                return None
            job, (seq, first, rows, offset, size, problems, attempts) = _job(found), found[_WIDTH:]
            token = secrets.randbits(62)
            self._db.execute(
                "UPDATE chunks SET token = ?, lease_until_s = ?, attempts = attempts + 1 "
                "WHERE job = ? AND first = ?",
                (token, now_s + lease_s, seq, first),
            )
            self._db.execute(
                "UPDATE jobs SET state = 'running', started_s = coalesce(started_s, ?) WHERE seq = ?",
                (at_s, seq),
            )
        return Claim(job, Chunk(first, rows, offset, size, _problems(problems)), token, attempts + 1)

    @_told
    def renew(self, claim: Claim, *, now_s: float, lease_s: float) -> bool:
        with self._writing():
            return self._change(claim, "lease_until_s = ?", now_s + lease_s)

    @_told
    def release(self, claim: Claim, *, is_attempt: bool) -> None:
        with self._writing():
            self._change(claim, "token = NULL, attempts = attempts - ?", int(not is_attempt))

    @_told
    def split(self, claim: Claim, pieces: Sequence[Chunk]) -> None:
        with self._writing():
            if not self._change(claim, "token = NULL"):
                return
            [seq] = self._db.execute("SELECT seq FROM jobs WHERE id = ?", (claim.job.id,)).fetchone()
            self._db.execute("DELETE FROM chunks WHERE job = ? AND first = ?", (seq, claim.chunk.first))
            self._insert_chunks(seq, pieces, attempts=claim.attempts - 1)
            self._db.execute(
                "UPDATE jobs SET open_chunks = open_chunks + ? WHERE seq = ?", (len(pieces) - 1, seq)
            )

    @_told
    def finish(self, claim: Claim, outcome: Outcome, *, at_s: float) -> Job | None:
        with self._writing():
            if not self._change(claim, "is_done = 1, token = NULL"):
                return None
            self._db.execute(
                "INSERT INTO outputs SELECT seq, ?, ?, ? FROM jobs WHERE id = ?",
                (claim.chunk.first, outcome.results, outcome.letters, claim.job.id),
            )
            self._db.execute(
                "UPDATE jobs SET scored = scored + ?, failed = failed + ?, open_chunks = open_chunks - 1 "
                "WHERE id = ?",
                (outcome.scored, outcome.failed, claim.job.id),
            )
            self._db.execute(
                "UPDATE jobs SET state = 'completed', finished_s = ? WHERE id = ? AND open_chunks = 0",
                (at_s, claim.job.id),
            )
            return self.get(claim.job.id, owner=claim.job.source.owner)

    @_told
    def release_all(self) -> None:
        with self._writing():
            self._db.execute("UPDATE chunks SET token = NULL WHERE token IS NOT NULL")
        gone = self._db.execute(
            "SELECT job FROM chunks UNION SELECT job FROM outputs EXCEPT SELECT seq FROM jobs"
        ).fetchall()
        for (seq,) in gone:
            while self.clear(seq):
                pass

    @_told
    def close(self) -> None:
        self._db.close()

    # --- inside -----------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that has the right to write from its beginning, so that none must be repeated."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")  # may fail, too; a transaction left open would fail all that follow
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    def _change(self, claim: Claim, setting: str, *values: object) -> bool:
        """Whether the claim holds, and so its chunk was changed."""
        return (
            self._db.execute(
                f"UPDATE chunks SET {setting} WHERE {_HELD}",  # noqa: S608 - of our own constants
                (*values, claim.job.id, claim.chunk.first, claim.token),
            ).rowcount
            == 1
        )

    def _insert_chunks(self, seq: int | None, chunks: Sequence[Chunk], *, attempts: int = 0) -> None:
        self._db.executemany(
            "INSERT INTO chunks (job, first, rows, offset, size, problems, attempts) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (seq, one.first, one.rows, one.offset, one.size, json.dumps(one.problems), attempts)
                for one in chunks
            ),
        )

    def _end(self, job_id: str, state: State, reason: str | None, at_s: float) -> bool:
        with self._writing():
            changed = self._db.execute(
                f"UPDATE jobs SET state = ?, reason = ?, finished_s = ? WHERE id = ? AND {_UNFINISHED}",  # noqa: S608
                (state, reason, at_s, job_id),
            ).rowcount
            if changed:
                self._db.execute(
                    "UPDATE chunks SET token = NULL "
                    "WHERE job = (SELECT seq FROM jobs WHERE id = ?) AND token IS NOT NULL",
                    (job_id,),
                )
        return changed == 1

    def _free_pages(self) -> int:
        [pages] = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(pages)


_WIDTH: Final = _COLUMNS.count(",") + 1


def _job(found: Sequence[Any]) -> Job:
    (
        job_id, number, owner, name, manifest, base, key, model, version, digest, top_k, state, reason,
        total, scored, failed, created_s, started_s, finished_s, *_,
    ) = found  # fmt: skip
    return Job(
        id=job_id,
        number=number,
        source=Source(owner, name, manifest, base, key),
        wanted=Wanted(model, version, digest, top_k),
        state=State(state),
        reason=reason,
        total=total,
        scored=scored,
        failed=failed,
        created_s=created_s,
        started_s=started_s,
        finished_s=finished_s,
    )


def _problems(said: str) -> dict[int, tuple[str, str]]:
    return {int(place): (code, reason) for place, (code, reason) in json.loads(said).items()}
