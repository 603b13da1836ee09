"""The seam to the database. One that several servers share can be put behind it; ours is app.jobs.sqlite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from app.jobs.job import Chunk, Claim, Job, Outcome, Source, Wanted

Kind = Literal["results", "letters"]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is unfinished, of everybody."""

    jobs: int
    rows: int


class Store(Protocol):
    """Jobs, their chunks and what became of them. Every method blocks, and raises StoreFailed.

    A chunk is finished by whoever holds its latest claim, once: claims that ran out, were given back, or
    whose job was cancelled or deleted change nothing any more. `now_s` of leases is a clock that all who
    share the store read alike; other times are seconds since 1970.
    """

    def add(
        self, job_id: str, source: Source, wanted: Wanted, chunks: Sequence[Chunk], *, now_s: float, most: int
    ) -> Job:
        """The job, queued; of an idempotency key that its owner used before, the job that it made.

        Raises TooMany if `most` are unfinished.
        """
        ...

    def get(self, job_id: str, *, owner: str) -> Job:
        """Raises JobNotFound."""
        ...

    def of_key(self, key: str, *, owner: str) -> Job | None:
        """The job that an idempotency key made."""
        ...

    def latest(self, *, owner: str, before: int | None, most: int) -> list[Job]:
        """The owner's jobs, newest first; those with a lower number."""
        ...

    def ids(self) -> set[str]:
        """Of all jobs."""
        ...

    def backlog(self) -> Backlog: ...

    def claim(self, *, now_s: float, lease_s: float, at_s: float) -> Claim | None:
        """The next chunk of the oldest unfinished job that nobody holds, or no more."""
        ...

    def renew(self, claim: Claim, *, now_s: float, lease_s: float) -> bool:
        """Whether the claim still holds."""
        ...

    def release(self, claim: Claim, *, is_attempt: bool) -> None:
        """Give it back: as one that could not be brought to an end, or as if it had not been claimed."""
        ...

    def split(self, claim: Claim, pieces: Sequence[Chunk]) -> None:
        """Put smaller chunks in its place, which nobody holds and which failed as often before."""
        ...

    def finish(self, claim: Claim, outcome: Outcome, *, at_s: float) -> Job | None:
        """Keep the outcome and mark the chunk, both or neither; None if the claim no longer holds."""
        ...

    def fail(self, job_id: str, reason: str, *, at_s: float) -> bool:
        """End an unfinished job; what is finished of it stays. Whether it was unfinished."""
        ...

    def cancel(self, job_id: str, *, at_s: float) -> bool:
        """Likewise, because its owner wants it."""
        ...

    def delete(self, job_id: str) -> int | None:
        """Its number, if it was there. What is left of it is to be cleared."""
        ...

    def clear(self, number: int) -> bool:
        """A step of removing what a deleted job left, which leaves room for others; whether there is more."""
        ...

    def finished_before(self, at_s: float) -> list[str]:
        """Jobs that ended before."""
        ...

    def output(self, job_id: str, kind: Kind, *, after: int) -> tuple[int, bytes] | None:
        """What the next finished chunk after the one whose first row is `after` gave, and its first row."""
        ...

    def release_all(self) -> None:
        """Whoever held claims is gone."""
        ...

    def close(self) -> None: ...
