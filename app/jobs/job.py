"""What a job is: rows in a file, the version that answers them, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"  # as a whole; that rows failed does not make it so
    CANCELLED = "cancelled"


UNFINISHED: Final = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of every row, fixed when the job is made."""

    model: str
    version: int
    digest: str
    top_k: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job came from. `owner` is the key's name, "" where there are no keys."""

    owner: str = ""
    name: str | None = None
    manifest: str | None = None  # of an upload None
    base: str | None = None  # the folder, below that of manifests, in which its rows name files
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Times are seconds since 1970. `reason` says why it failed; `number` grows from job to job."""

    id: str
    number: int
    source: Source
    wanted: Wanted
    state: State
    reason: str | None
    total: int
    scored: int
    failed: int
    created_s: float
    started_s: float | None
    finished_s: float | None

    @property
    def is_unfinished(self) -> bool:
        return self.state in UNFINISHED


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are neighbours in the job's file: what is claimed, answered and committed at once.

    `first` is the position of the first of them. `problems` are those that a row on its own does not show,
    code and reason by position.
    """

    first: int
    rows: int
    offset: int
    size: int
    problems: Mapping[int, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """A chunk that is ours for a while. `attempts` counts claims, this one too."""

    job: Job
    chunk: Chunk
    token: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a chunk's rows: lines of JSON, in their order."""

    results: bytes
    letters: bytes
    scored: int
    failed: int
