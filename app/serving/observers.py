"""Several observers as one."""

from __future__ import annotations

from collections.abc import Sequence

from app.runtime.predictor import PartRun
from app.serving.batcher import Observer
from app.serving.schedule import Priority


class Observers:
    """Tells each, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def ran(self, work: object, parts: Sequence[PartRun], *, rows: int, seconds: float) -> None:
        for observer in self._observers:
            observer.ran(work, parts, rows=rows, seconds=seconds)

    def abandoned(self, priority: Priority) -> None:
        for observer in self._observers:
            observer.abandoned(priority)
