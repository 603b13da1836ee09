"""How a run is going: counts, rates and the display of them on standard error."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from app.score.engine import Load, Outcome, Scored

_EVERY_S: Final = 5.0  # one line of JSON
_RECENT: Final = 1000  # outcomes that percentiles are of
_WINDOW_S: Final = 30.0  # that the rate is of


@dataclass(slots=True)
class Meter:
    """Counts of this process; `before` is what earlier ones finished."""

    load: Callable[[], Load]
    before: int = 0
    clock: Callable[[], float] = time.monotonic
    scored: int = 0
    errors: int = 0
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _marks: deque[tuple[float, int]] = field(default_factory=deque)
    _began_s: float = field(init=False)
    _first_share: float | None = field(default=None, init=False)
    _share: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._began_s = self.clock()
        self._marks.append((self._began_s, 0))

    def count(self, outcome: Outcome) -> None:
        if isinstance(outcome, Scored):
            self.scored += 1
        else:
            self.errors += 1
        share = outcome.row.share
        self._share = max(self._share, share)
        self._first_share = share if self._first_share is None else self._first_share
        if outcome.seconds:
            self._seconds.append(outcome.seconds)

    def snapshot(self) -> dict[str, Any]:
        """Numbers for the display; those that are not known yet are absent."""
        now_s, done, load = self.clock(), self.scored + self.errors, self.load()
        self._marks.append((now_s, done))
        while len(self._marks) > 2 and now_s - self._marks[0][0] > _WINDOW_S:
            self._marks.popleft()
        began_s, begun = self._marks[0]
        elapsed_s = now_s - self._began_s
        said: dict[str, Any] = {
            "rows": done,
            "errors": self.errors,
            "finished_before": self.before,
            "rows_per_second": round((done - begun) / max(now_s - began_s, 1e-9), 1),
            "concurrency": load.concurrency,
            "retries": load.retries,
            "share": round(self._share, 4),
            "elapsed_s": round(elapsed_s, 1),
        }
        if self._seconds:
            ordered = sorted(self._seconds)
            said["p50_ms"] = round(1000 * ordered[len(ordered) // 2], 1)
            said["p95_ms"] = round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 1)
        first = self._first_share
        if first is not None and first < self._share < 1:
            said["eta_s"] = round(elapsed_s * (1 - self._share) / (self._share - first))
        return said


@contextmanager
def shown(meter: Meter) -> Iterator[None]:
    """While the block lasts: a bar on a terminal, else a line of JSON every five seconds."""
    display = _bar if sys.stderr.isatty() else _lines
    with display(meter):
        yield


@contextmanager
def _every(seconds: float, show: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(seconds):
            show()

    thread = threading.Thread(target=live, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _lines(meter: Meter) -> Iterator[None]:
    def show() -> None:
        sys.stderr.write(json.dumps(meter.snapshot()) + "\n")
        sys.stderr.flush()

    with _every(_EVERY_S, show):
        yield


@contextmanager
def _bar(meter: Meter) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)

        def show() -> None:
            now = meter.snapshot()
            bar.update(task, completed=now["share"], description=_sentence(now))

        with _every(0.5, show):
            yield
        show()


def _sentence(now: dict[str, Any]) -> str:
    said = [f"{now['rows']:,} rows", f"{now['rows_per_second']:,.0f}/s", f"{now['errors']:,} errors"]
    if "p50_ms" in now:
        said.append(f"p50 {now['p50_ms']:.0f} ms, p95 {now['p95_ms']:.0f} ms")
    said.append(f"{now['concurrency']} at once")
    if "eta_s" in now:
        minutes, seconds = divmod(now["eta_s"], 60)
        said.append(f"{minutes}:{seconds:02} left")
    return " · ".join(said)
