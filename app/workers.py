"""Several processes of one server: forked, watched, replaced when they die or hang, told to stop together.

The parent opens no model and starts no thread, so it is small, has little that can fail, and may fork at
any time. A worker knows its slot, a number that its replacement inherits, and has a byte of memory there in
which it shows that its event loop turns.
"""

from __future__ import annotations

import logging
import mmap
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Final

log = logging.getLogger(__name__)

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_INTERRUPTED: Final = 128 + signal.SIGINT  # what shells call a process ended by its user
_AGAIN_S: Final = 1.0  # between a death and the replacement, so that one that dies at once does not spin
_LOOK_S: Final = 1.0  # between two looks at the pulses

Beat = Callable[[], None]


class Pulses:
    """A byte for each slot, shared with the workers. It changes at every beat; 0 until the first.

    How long a byte has not changed is counted from look to look and not by the clock: a machine that slept,
    and the looks with it, has no reason to find its workers dead.
    """

    def __init__(self, count: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes = mmap.mmap(-1, count)
        self._clock = clock
        self._looked_s = clock()
        self._seen = [0] * count
        self._silent_s = [0.0] * count

    def begin(self, slot: int) -> None:
        """Its worker is new, and may take its time to start."""
        self._bytes[slot] = self._seen[slot] = 0
        self._silent_s[slot] = 0.0

    def beat(self, slot: int) -> None:
        self._bytes[slot] = self._bytes[slot] % 255 + 1

    def look(self) -> list[float]:
        """For each slot, the seconds without a beat; 0 before the first one."""
        now_s = self._clock()
        passed_s, self._looked_s = min(now_s - self._looked_s, 2 * _LOOK_S), now_s
        for slot, seen in enumerate(self._seen):
            self._seen[slot] = self._bytes[slot]
            is_silent = self._seen[slot] == seen != 0
            self._silent_s[slot] = self._silent_s[slot] + passed_s if is_silent else 0.0
        return list(self._silent_s)


class Workers:
    """`work(slot, beat)` is a worker's life, and its exit code; `lost(slot)` cleans up after one that ended.

    A worker that has beaten once is killed when it does not for `timeout_s`; never if that is 0.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[int, Beat], int],
        *,
        lost: Callable[[int], None],
        timeout_s: float,
    ) -> None:
        self._count = count
        self._work = work
        self._lost = lost
        self._timeout_s = timeout_s
        self._pulses = Pulses(count)
        self._wakeup = os.pipe()  # a byte for every signal, so that no look sleeps through one
        self._slots: dict[int, int] = {}  # by process id
        self._stopping = False
        self._replaced = False  # from then on, what a worker cannot do is no reason to stop the others
        self._leash = os.pipe()  # workers read until it ends, with this process

    def run(self) -> int:
        """Until told to stop, or until a worker cannot start: the exit code."""
        for descriptor in self._wakeup:
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # no signal wakes who has no handler
        for number in _STOP:
            signal.signal(number, self._stop)
        for slot in range(self._count):
            self._start(slot)
        code = 0
        while self._slots:
            self._wait()
            for slot, status in self._dead():
                code = code or self._ended(slot, status)
            self._kill_silent()
        return code

    def _wait(self) -> None:
        """Until a signal, or for the time between two looks."""
        if select.select([self._wakeup[0]], [], [], _LOOK_S)[0]:
            os.read(self._wakeup[0], 4096)

    def _dead(self) -> Iterator[tuple[int, int]]:
        """Workers that ended since: slot and exit code."""
        while self._slots:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            slot = self._slots.pop(pid, None)
            if slot is not None:  # as the first process of a container it inherits what others leave behind
                yield slot, os.waitstatus_to_exitcode(status)

    def _kill_silent(self) -> None:
        """A worker whose event loop does not turn answers nobody, and would not even stop when told to."""
        silent_s = self._pulses.look()
        for pid, slot in self._slots.items():
            if 0 < self._timeout_s <= silent_s[slot]:
                log.error(
                    "a worker's event loop is blocked, so it is killed",
                    extra={"slot": slot, "silent_s": round(silent_s[slot], 1)},
                )
                os.kill(pid, signal.SIGKILL)
                self._pulses.begin(slot)

    def _ended(self, slot: int, code: int) -> int:
        """Replace who died; the code to end with, if it could not even start."""
        self._lost(slot)
        if self._stopping:
            return 0
        if code > 1 and not self._replaced:  # it has said why, and the others have the same reason
            self._tell(signal.SIGTERM)
            return code
        log.error("a worker ended and is replaced", extra={"slot": slot, "code": code})
        self._replaced = True
        time.sleep(_AGAIN_S)
        if not self._stopping:
            self._start(slot)
        return 0

    def _start(self, slot: int) -> None:
        self._pulses.begin(slot)
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)  # none may fall between the fork and the note of it
        pid = os.fork()
        if pid == 0:
            self._live(slot)
        self._slots[pid] = slot
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)

    def _live(self, slot: int) -> None:
        """In the worker. Never returns."""
        code = 1
        try:
            os.setpgid(0, 0)  # a terminal's Ctrl-C is for the parent, which tells the workers
            os.close(self._leash[1])
            signal.set_wakeup_fd(-1)
            for number in (*_STOP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
            threading.Thread(target=self._hang_on, name="leash", daemon=True).start()
            code = self._work(slot, partial(self._pulses.beat, slot))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:  # the parent's stack is below us, and must not see it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _hang_on(self) -> None:
        os.read(self._leash[0], 1)
        os.kill(os.getpid(), signal.SIGTERM)  # the parent is gone: stop in order

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping:
            self._tell(signal.SIGKILL)
            raise SystemExit(_INTERRUPTED)
        self._stopping = True
        self._tell(signal.SIGTERM)

    def _tell(self, number: signal.Signals) -> None:
        for pid in self._slots:
            os.kill(pid, number)
