"""Several processes of one server: forked, watched, replaced when they die, told to stop together.

The parent opens no model and starts no thread, so it is small, has little that can fail, and may fork at
any time. A worker knows its slot, a number that its replacement inherits.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

log = logging.getLogger(__name__)

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_INTERRUPTED: Final = 128 + signal.SIGINT  # what shells call a process ended by its user
_AGAIN_S: Final = 1.0  # between a death and the replacement, so that one that dies at once does not spin


class Workers:
    """`work(slot)` is a worker's life, and its exit code; `lost(slot)` cleans up after one that ended."""

    def __init__(self, count: int, work: Callable[[int], int], *, lost: Callable[[int], None]) -> None:
        self._count = count
        self._work = work
        self._lost = lost
        self._slots: dict[int, int] = {}  # by process id
        self._stopping = False
        self._replaced = False  # from then on, what a worker cannot do is no reason to stop the others
        self._leash = os.pipe()  # workers read until it ends, with this process

    def run(self) -> int:
        """Until told to stop, or until a worker cannot start: the exit code."""
        for number in _STOP:
            signal.signal(number, self._stop)
        for slot in range(self._count):
            self._start(slot)
        code = 0
        while self._slots:
            pid, status = os.wait()
            slot = self._slots.pop(pid)
            code = code or self._ended(slot, os.waitstatus_to_exitcode(status))
        return code

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
            for number in _STOP:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
            threading.Thread(target=self._hang_on, name="leash", daemon=True).start()
            code = self._work(slot)
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
