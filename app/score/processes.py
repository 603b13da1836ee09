"""The engine in several processes of this machine, each with the bundle: Python decodes on every core.

    this process                          each worker
    ------------                          -----------
    rows, ledger, parts                   a LocalEngine
         |                                     ^
         +------- packs, two a worker -------->|
         <------- outcomes without rows -------+

A worker that dies takes at most one pack along, which another begins again. A pack under which workers die
twice is divided, until the one row is left that kills whoever runs it.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

from app.bundle.errors import BundleError
from app.bundle.folder import Bundle, read_bundle
from app.rows.row import Row
from app.runtime.errors import RuntimeFault
from app.runtime.session import Device
from app.score.engine import Failed, Load, Outcome
from app.score.errors import EngineLost
from app.score.local import LocalEngine, Running, model_of, packs

log = logging.getLogger(__name__)

_HELD: Final = 2  # packs that a worker has: the one it answers, and the next
_AHEAD: Final = 4  # packs a worker that are begun and not handed on: outcomes wait for those before them
_DEATHS: Final = 2  # of workers under the same rows
_NOBODY: Final = Row(0, "", None, Path(), {})
_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork has the runtime's locks without its threads


@dataclass(frozen=True, slots=True)
class Opened:
    """What each worker opens."""

    folder: Path
    digest: str
    running: Running
    device: Device

    def engine(self) -> LocalEngine:
        """Raises BundleError, RuntimeFault or EngineLost."""
        bundle = read_bundle(self.folder)
        if bundle.manifest.digest != self.digest:
            raise EngineLost(f"The bundle in {self.folder} was replaced while it was being loaded.")
        return LocalEngine.open(bundle, self.running, device=self.device)


@contextmanager
def several_processes(
    folder: Path, bundle: Bundle, running: Running, *, device: Device, workers: int
) -> Iterator[ProcessesEngine]:
    """Workers that hold the bundle, until the block ends. Raises EngineLost."""
    opened = Opened(folder, bundle.manifest.digest, running, device)
    engine = ProcessesEngine(bundle, opened, workers)
    try:
        engine.wait_ready()
        yield engine
    finally:
        engine.close()


class ProcessesEngine:
    """See Engine. Rows come in order, and answers are those of a LocalEngine, bit for bit."""

    def __init__(self, bundle: Bundle, opened: Opened, workers: int) -> None:
        self.model = model_of(bundle.manifest)
        self._opened = opened
        self._workers = [_Worker(opened) for _ in range(workers)]
        self._todo: deque[_Piece] = deque()

    @property
    def load(self) -> Load:
        return Load(concurrency=len(self._workers))

    def wait_ready(self) -> None:
        """Raises EngineLost."""
        while not all(worker.is_ready for worker in self._workers):
            self._collect(None)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def score(self, rows: Iterable[Row]) -> Generator[Outcome, None, None]:
        """See Engine."""
        several = packs(rows, self._opened.running.batch_rows)
        begun: deque[_Pack] = deque()  # in order: the first is the next to be handed on
        is_over = False
        while begun or not is_over:
            is_wanted = not self._todo and any(worker.has_room for worker in self._workers)
            is_read = not is_over and is_wanted and len(begun) < _AHEAD * len(self._workers)
            if is_read:
                if (pack := next(several, None)) is None:
                    is_over = True
                    continue
                begun.append(_Pack(pack))
                self._todo.append(_Piece(begun[-1], 0, len(pack)))
            self._hand_out()
            self._collect(0.0 if is_read else None)
            while begun and begun[0].is_answered:
                yield from begun.popleft().outcomes()

    def _hand_out(self) -> None:
        """To who has least, of those that are ready."""
        while self._todo and (free := [worker for worker in self._workers if worker.has_room]):
            min(free, key=lambda worker: len(worker.held)).give(self._todo.popleft())

    def _collect(self, timeout_s: float | None) -> None:
        """What workers have answered by now, or the first such; those that died are replaced.

        Raises EngineLost.
        """
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), timeout_s):
            assert isinstance(pipe, Connection)
            worker = by_pipe[pipe]
            if not worker.collect():
                self._replace(worker)

    def _replace(self, dead: _Worker) -> None:
        why = dead.buried()
        if not dead.is_ready:
            raise EngineLost(f"A process that loads the bundle {why}. Lower --workers if memory is short.")
        log.warning("a worker %s; its rows are begun again", why)
        self._workers[self._workers.index(dead)] = _Worker(self._opened)
        for number, piece in enumerate(dead.held):
            self._todo.extendleft(reversed(piece.after_death(why) if number == 0 else [piece]))


class _Pack:
    """Rows that came together, and what has become of each."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self._said: dict[int, Outcome] = {}

    @property
    def is_answered(self) -> bool:
        return len(self._said) == len(self.rows)

    def say(self, start: int, outcomes: Iterable[Outcome]) -> None:
        self._said.update(enumerate(outcomes, start))

    def outcomes(self) -> Iterator[Outcome]:
        return (replace(self._said[at], row=row) for at, row in enumerate(self.rows))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a pack, as it is given to a worker: the whole, if nobody died under it."""

    pack: _Pack
    start: int
    end: int
    deaths: int = 0

    @property
    def rows(self) -> list[Row]:
        """As far as they are needed to answer them: what stood in the input may be large."""
        return [replace(row, original=None) for row in self.pack.rows[self.start : self.end]]

    def after_death(self, why: str) -> list[_Piece]:
        """What is to be begun again after a worker died under it."""
        if self.deaths + 1 < _DEATHS:
            return [replace(self, deaths=self.deaths + 1)]
        if self.end - self.start > 1:
            middle = (self.start + self.end) // 2
            return [replace(self, end=middle, deaths=0), replace(self, start=middle, deaths=0)]
        reason = f"The process that ran it {why}, {_DEATHS} times."
        self.pack.say(self.start, [Failed(_NOBODY, "predict", "internal", reason, attempts=_DEATHS)])
        return []


@dataclass(slots=True)
class _Worker:
    """This side of a process. `held` is what it was given and has not answered, in order."""

    opened: Opened
    held: deque[_Piece] = field(default_factory=deque)
    is_ready: bool = False
    pipe: Connection = field(init=False)
    _process: multiprocessing.process.BaseProcess = field(init=False)

    def __post_init__(self) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(theirs, self.opened), daemon=True)
        with _undisturbed():
            self._process.start()
        theirs.close()  # so that its end is noticed

    @property
    def has_room(self) -> bool:
        return self.is_ready and len(self.held) < _HELD

    def give(self, piece: _Piece) -> None:
        self.held.append(piece)
        with suppress(OSError):  # that it died is noticed where its answers are collected
            self.pipe.send(piece.rows)

    def collect(self) -> bool:
        """Take its next answer; False if it is dead. Raises EngineLost."""
        try:
            said = self.pipe.recv()
        except (EOFError, OSError):
            return False
        if isinstance(said, EngineLost):
            raise said
        if said is not None:
            piece = self.held.popleft()
            piece.pack.say(piece.start, said)
        self.is_ready = True
        return True

    def buried(self) -> str:
        """How it died."""
        self._process.join()
        self.pipe.close()
        code = self._process.exitcode or 0
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"

    def close(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait until a process is started whole; a terminal's Ctrl-C, which is for all, never reaches it.

    The mask is what it inherits; other threads of ours, such as those of numpy, hear signals all the same.
    """
    resource_tracker.ensure_running()  # which would lift the mask as it starts
    heard: list[int] = []
    ours = (signal.SIGINT, signal.SIGTERM) if _is_main_thread() else ()
    handlers = {number: signal.signal(number, lambda which, _: heard.append(which)) for number in ours}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for which in heard:
            signal.raise_signal(which)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


# --- in the worker ------------------------------------------------------------------------------------


def _work(pipe: Connection, opened: Opened) -> None:
    """Say None when ready, then answer packs, until the other side is gone. EngineLost is the last word."""
    with suppress(OSError):
        try:
            engine = opened.engine()
            pipe.send(None)
            for pack in iter(_received(pipe).get, None):
                for outcomes in engine.answer([pack]):
                    pipe.send([replace(outcome, row=_NOBODY) for outcome in outcomes])
        except (BundleError, RuntimeFault, EngineLost) as error:
            pipe.send(EngineLost(str(error)))


def _received(pipe: Connection) -> queue.SimpleQueue[list[Row] | None]:
    """Packs as they come, and None at the end: a thread takes them, so that nobody waits to send one."""
    arrived: queue.SimpleQueue[list[Row] | None] = queue.SimpleQueue()

    def receive() -> None:
        with suppress(EOFError, OSError):
            while True:
                arrived.put(pipe.recv())
        arrived.put(None)

    threading.Thread(target=receive, name="receive", daemon=True).start()
    return arrived
