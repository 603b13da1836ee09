"""The seam between a run and what answers its rows: a bundle in this process, a server, a cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.bundle.manifest import Modality
from app.rows.letters import Stage
from app.rows.row import Row


@dataclass(frozen=True, slots=True)
class Model:
    """The bundle that answers, as far as its answers' columns and the rows' limits need it."""

    name: str
    version: int
    digest: str
    labels: int
    is_multilabel: bool
    has_sets: bool
    most_bytes: Mapping[Modality, int]  # of each modality that it reads

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Scored:
    """A row that was answered: the entries of `columns.answer`. `seconds` are those of the call it was in."""

    row: Row
    answer: Mapping[str, Any]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that was not: it becomes a dead letter. `code` is a reader's, or stands in docs/http.md."""

    row: Row
    stage: Stage
    code: str
    reason: str
    attempts: int = 1
    seconds: float = 0.0


Outcome = Scored | Failed


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine has in hand, for the display."""

    concurrency: int = 1
    retries: int = 0


class Engine(Protocol):
    """Answers rows. `score` is called once."""

    @property
    def model(self) -> Model: ...

    @property
    def load(self) -> Load: ...

    def score(self, rows: Iterable[Row]) -> Generator[Outcome, None, None]:
        """One outcome for each row, in any order unless the engine was made for theirs.

        Takes no more rows than it needs to stay busy, from one thread at a time. Closing the iterator stops
        it. Raises EngineLost.
        """
        ...
