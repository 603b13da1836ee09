"""One request until there is an answer, or until it is known that there will be none."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.client import TrichordError
from app.score.errors import EngineLost
from app.score.http import Fault
from app.score.pace import Gate, Limit, pause_s

BUSY: Final = (429, 503)
LATE: Final = 504
TOO_LARGE: Final = (503, LATE)  # perhaps; 429 is about how often a key is used
_ENOUGH: Final = 3  # such answers with no other request on the way, until one is asked in parts
_UNLUCKY: Final = (408, 500, 502, 504)  # may go better another time
_NOBODY_ASKED: Final = (401, 403, 404)

_Said = TypeVar("_Said")


@dataclass(frozen=True, slots=True)
class Asked(Generic[_Said]):
    """What was said, when it was asked for and how long that took, and how often it was asked for."""

    said: _Said
    began_s: float
    seconds: float
    attempts: int


class GaveUp(Exception):
    """A request that has no answer and will get none as it is."""

    def __init__(self, fault: Fault, attempts: int) -> None:
        super().__init__(fault.detail)
        self.fault = fault
        self.attempts = attempts


class Asker:
    """Requests to one server, as many at once as it bears.

    Being sent away or finding nobody counts against no request: it is made again until `patience_s` have
    passed without any answer at all. Being late counts where no other request was on the way. What may be
    the request's own fault is tried `retries` times more.
    """

    def __init__(
        self, *, most_at_once: int, retries: int, patience_s: float, pause_s: Callable[..., float] = pause_s
    ) -> None:
        self.retries = 0
        self.has_answered = False
        self._limit = Limit(most_at_once)
        self._gate = Gate(self._limit)
        self._most, self._patience_s, self._pause_s = retries, patience_s, pause_s
        self._alive_s = -math.inf

    @property
    def at_once(self) -> int:
        return self._limit.now

    async def pause(self, attempt: int, *, retry_after_s: float | None) -> None:
        await asyncio.sleep(self._pause_s(attempt, retry_after_s=retry_after_s))

    async def ask(self, call: Callable[[], Awaitable[_Said]], *, is_divisible: bool) -> Asked[_Said]:
        """Raises GaveUp, also where half of it may do better, or EngineLost where no row can be answered."""
        attempt = unlucky = too_large = 0
        asked_s = time.monotonic()
        while True:
            attempt += 1
            async with self._gate.enter():
                began_s, is_alone = time.monotonic(), self.at_once == 1
                try:
                    said = await call()
                except TrichordError as error:
                    fault = Fault.of(error)
                else:
                    self._alive_s = time.monotonic()
                    self.has_answered = True
                    return Asked(said, began_s, self._alive_s - began_s, attempt)
            if _is_too_much(fault):
                self.refused(began_s=began_s)
                too_large += is_alone and fault.status in TOO_LARGE
            unlucky += _may_be_its_fault(fault, is_alone=is_alone)
            if not _may_go_better(fault) or unlucky > self._most:
                raise GaveUp(fault, attempt)
            self._check_patience(fault, since_s=max(self._alive_s, asked_s))
            if is_divisible and too_large >= _ENOUGH:
                raise GaveUp(fault, attempt)
            self.retries += 1
            await self.pause(attempt, retry_after_s=fault.retry_after_s)

    def answered(self, seconds: float) -> None:
        """A request of the usual size took so long: more or fewer may be made at once."""
        self._limit.answered(seconds)

    def refused(self, *, began_s: float) -> None:
        """A request that began then, or a part of it, was too much: fewer may be made at once."""
        self._limit.refused(began_s=began_s)

    def _check_patience(self, fault: Fault, *, since_s: float) -> None:
        silent_s = time.monotonic() - since_s
        if silent_s > self._patience_s:
            raise EngineLost(
                f"No answer for {silent_s:.0f} s. {fault.detail} "
                "What is finished is kept: run it again to go on."
            )


def _is_too_much(fault: Fault) -> bool:
    return fault.status in (*BUSY, LATE) or fault.code == "timeout"


def _may_be_its_fault(fault: Fault, *, is_alone: bool) -> bool:
    """Whether the rows themselves may be what breaks the server, or keeps it too long."""
    if fault.status == LATE:
        return is_alone
    return fault.is_sent and fault.status not in BUSY


def _may_go_better(fault: Fault) -> bool:
    """Raises EngineLost where it never will, for any row."""
    if fault.status is None:
        return True
    if fault.status in _NOBODY_ASKED or fault.status < 400:  # below that, it is no server of ours
        raise EngineLost(f"The server refuses every row. {fault.detail}")
    return fault.status in BUSY or fault.status in _UNLUCKY
