"""Workers that some rows kill. A module of its own, because a worker imports it."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from app.rows.row import Row
from app.score.engine import Outcome, Scored
from app.score.processes import Opened


@dataclass(frozen=True, slots=True)
class Deadly(Opened):
    """Opens an engine that these positions kill."""

    killers: frozenset[int] = frozenset()

    def engine(self) -> Any:
        return _Engine(self.killers)


@dataclass(frozen=True, slots=True)
class _Engine:
    killers: frozenset[int]

    def answer(self, several: Iterable[list[Row]]) -> Generator[list[Outcome], None, None]:
        for pack in several:
            if any(row.position in self.killers for row in pack):
                os.kill(os.getpid(), signal.SIGKILL)
            yield [Scored(row, {"position": row.position, "of": os.getpid()}) for row in pack]
