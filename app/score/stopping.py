"""SIGINT and SIGTERM end a run between two rows, never inside one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """Somebody wants the run to end. What is finished is kept."""


class Stopping:
    """Raises Stopped where the process is when a signal comes, or at the end of a held block."""

    def __init__(self) -> None:
        self._is_held = False
        self._is_wanted = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_wanted:
            self._is_wanted = False
            raise Stopped

    def _hear(self, _number: int, _frame: object) -> None:
        if not self._is_held:
            raise Stopped
        self._is_wanted = True
