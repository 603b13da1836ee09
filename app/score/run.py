"""The loop: rows that are not finished go to the engine, its outcomes into parts and dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from app.rows.errors import Unreadable
from app.rows.letters import dead_letter
from app.rows.row import Row
from app.rows.seen import SeenIds
from app.score.columns import output_row
from app.score.engine import Engine, Failed, Model, Outcome, Scored
from app.score.errors import TooManyErrors
from app.score.inputs import Input
from app.score.ledger import Ledger
from app.score.pace import Rate
from app.score.parts import OpenPart, Part
from app.score.positions import Positions

_PART_S: Final = 300.0  # a part is closed after this long, so that a slow model loses little to a kill
_FIRST_ROWS: Final = 100  # before a share of errors means anything


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `count`-th row, from row `index` on."""

    index: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class MostErrors:
    """How many rows may fail: so many, or a share of those finished. None is any number."""

    rows: int | None = None
    share: float | None = None

    def is_passed(self, *, dead: int, finished: int, is_over: bool) -> bool:
        if self.rows is not None:
            return dead > self.rows
        if self.share is None or (finished < _FIRST_ROWS and not is_over):
            return False
        return dead > self.share * finished


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The shard's rows that have no outcome yet. An id that came before, in any shard, is a problem.

    Each iteration begins anew, so an engine may read them elsewhere, and again where a machine was lost.
    """

    rows: Input
    finished: Positions
    shard: Shard = Shard()
    limit: int | None = None
    per_second: float | None = None

    def __iter__(self) -> Iterator[Row]:
        seen = SeenIds()
        rate = Rate(self.per_second) if self.per_second else None
        mine = 0
        for found in self.rows.found():
            is_new = seen.is_new(found.id)
            if found.position % self.shard.count != self.shard.index:
                continue
            if self.limit is not None and mine >= self.limit:
                return
            mine += 1
            if found.position in self.finished:
                continue
            if rate is not None and (wait_s := rate.wait_s()):
                time.sleep(wait_s)
            row = found.row()
            yield row if is_new or row.problem else _twice(row)


def _twice(row: Row) -> Row:
    problem = Unreadable("duplicate_id", "An earlier row has the same id.")
    return replace(row, problem=problem)


@dataclass(frozen=True, slots=True)
class _Open:
    """The part that is being written and the rows in it: one without the other would lose rows."""

    part: Part
    began_s: float
    positions: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Output:
    """Parts and dead letters of one run, through its ledger.

    A part that cannot be written to its end is dropped, and its rows stay unfinished.
    """

    ledger: Ledger
    open: OpenPart
    suffix: str
    model: Model
    columns: tuple[str, ...]
    part_rows: int
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _part: _Open | None = field(default=None, init=False)

    @property
    def unpublished(self) -> int:
        """Rows in the open part."""
        return len(self._part.positions) if self._part else 0

    def take(self, outcome: Outcome) -> Outcome:
        """Write it; what cannot be written is a failure of its own. Returns what became of the row."""
        if isinstance(outcome, Scored):
            row = output_row(outcome.row.id, outcome.answer, self.model, self.columns, at=self.now())
            if row is None:
                reason = "A number of the answer is not finite."
                outcome = Failed(outcome.row, "write", "model_nonfinite", reason, seconds=outcome.seconds)
            else:
                self._add(outcome.row.position, row)
        if isinstance(outcome, Failed):
            self.ledger.bury(_letter(outcome, at=self.now()))
        if self._part and self._is_due(self._part):
            self.publish()
        return outcome

    def publish(self) -> None:
        """Close the open part, if there is one."""
        done, self._part = self._part, None
        if done is not None:
            done.part.close()
            self.ledger.publish(done.positions, suffix=self.suffix)
        self.ledger.sync()

    def _add(self, position: int, row: dict[str, Any]) -> None:
        into = self._part or _Open(self.open(self.ledger.open_part), self.clock())
        self._part = None  # until the row is in it: what is broken off must not be published
        try:
            into.part.add(row)
        except OSError:
            with suppress(OSError):
                into.part.close()
            raise
        into.positions.append(position)
        self._part = into

    def _is_due(self, part: _Open) -> bool:
        return len(part.positions) >= self.part_rows or self.clock() - part.began_s >= _PART_S


def _letter(failed: Failed, *, at: datetime) -> dict[str, Any]:
    return dead_letter(
        failed.row,
        stage=failed.stage,
        code=failed.code,
        reason=failed.reason,
        attempts=failed.attempts,
        at=at,
    )


Held = Callable[[], AbstractContextManager[object]]  # nothing interrupts the block


def score(
    rows: Iterable[Row],
    engine: Engine,
    output: Output,
    *,
    most_errors: MostErrors,
    seen: Callable[[Outcome], None],
    held: Held = nullcontext,
) -> None:
    """Until no row is left. What has an outcome is finished also if it ends early.

    Raises TooManyErrors, EngineLost, NotAsked or what interrupts it.
    """
    ledger = output.ledger
    try:
        with closing(engine.score(rows)) as outcomes:
            for outcome in outcomes:
                with held():  # a row is in the part and counted there, or neither
                    became = output.take(outcome)
                seen(became)
                if isinstance(became, Failed):
                    _check(ledger, output, most_errors, is_over=False)
        _check(ledger, output, most_errors, is_over=True)
    finally:
        with held():
            output.publish()


def _check(ledger: Ledger, output: Output, most: MostErrors, *, is_over: bool) -> None:
    finished = ledger.scored + ledger.dead + output.unpublished
    if most.is_passed(dead=ledger.dead, finished=finished, is_over=is_over):
        raise TooManyErrors(
            f"{ledger.dead} of {finished} rows failed, more than --max-errors allows. What is finished is "
            "kept, the reasons are in errors.jsonl."
        )
