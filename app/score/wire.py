"""Rows and outcomes as bytes, for an engine whose rows travel between machines: Arrow around JSON.

A parcel is a row of an Arrow table: its number from 0, the packs that it brings to a worker, and why no more
could be read, if so. The last one has no packs. What comes back for it has the outcomes of all its rows, or
why there can be none. Numbers pass through JSON bit for bit, and so do strings that are no Unicode.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow

from app.bundle.manifest import MODALITIES, Modality
from app.rows.errors import Unreadable
from app.rows.records import json_bytes
from app.rows.row import InFile, Row
from app.score.engine import Failed, Outcome, Scored

_MOST_PACKS: Final = 8  # of a parcel: handing one over costs some milliseconds
_MOST_BYTES: Final = 8 * 2**20  # of the media in it, beyond which no pack is added
_MOST_S: Final = 1.0  # that its first pack waits for the others

_ROW: Final = pyarrow.struct(
    [("about", pyarrow.large_binary()), *((name, pyarrow.large_binary()) for name in MODALITIES)]
)
_PARCEL: Final = pyarrow.schema(
    [
        ("number", pyarrow.int64()),
        ("packs", pyarrow.list_(pyarrow.list_(_ROW))),
        ("unread", pyarrow.string()),
    ]
)
_ANSWERED: Final = pyarrow.schema(
    [
        ("number", pyarrow.int64()),
        ("outcomes", pyarrow.large_binary()),
        ("unread", pyarrow.string()),
        ("lost", pyarrow.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Parcel:
    """`unread` says why the input cannot be read on."""

    number: int
    packs: tuple[list[Row], ...] = ()
    unread: str | None = None

    @property
    def is_last(self) -> bool:
        return not self.packs

    def table(self) -> pyarrow.Table:
        packs = [[_of_row(row) for row in pack] for pack in self.packs]
        rows = [{"number": self.number, "packs": packs, "unread": self.unread}]
        return pyarrow.Table.from_pylist(rows, schema=_PARCEL)


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a parcel. Its rows hold what is needed to write them down, and no media."""

    number: int
    outcomes: tuple[Outcome, ...] = ()
    is_last: bool = False
    unread: str | None = None
    lost: str | None = None

    def table(self) -> pyarrow.Table:
        outcomes = None if self.is_last else _dumped([_of_outcome(outcome) for outcome in self.outcomes])
        rows = [
            {"number": self.number, "outcomes": outcomes, "unread": self.unread, "lost": self.lost},
        ]
        return pyarrow.Table.from_pylist(rows, schema=_ANSWERED)


def parcels(packs: Iterable[list[Row]], *, clock: Callable[[], float] = time.monotonic) -> Iterator[Parcel]:
    """All packs in order, as many to a parcel as are there soon, and one without packs at the end."""
    number = size = 0
    began_s = 0.0
    held: list[list[Row]] = []
    for pack in packs:
        began_s = began_s if held else clock()
        held.append(pack)
        size += sum(len(body) for row in pack for body in row.media.values() if isinstance(body, bytes))
        if len(held) >= _MOST_PACKS or size >= _MOST_BYTES or clock() - began_s >= _MOST_S:
            yield Parcel(number, tuple(held))
            number, held, size = number + 1, [], 0
    if held:
        yield Parcel(number, tuple(held))
        number += 1
    yield Parcel(number)


def parcels_in(table: pyarrow.Table) -> Iterator[Parcel]:
    for line in table.to_pylist():
        packs = tuple([_row(entry) for entry in pack] for pack in line["packs"])
        yield Parcel(line["number"], packs, line["unread"])


def answered_in(table: pyarrow.Table) -> Iterator[Answered]:
    for line in table.to_pylist():
        said = line["outcomes"]
        outcomes = () if said is None else tuple(_outcome(entry) for entry in json.loads(said))
        yield Answered(line["number"], outcomes, said is None, line["unread"], line["lost"])


# --- rows -------------------------------------------------------------------------------------------


def _of_row(row: Row) -> dict[str, bytes | None]:
    """The media's bytes beside what is said about the row; of a file, where it is."""
    places = {
        name: [str(where.path), where.offset, where.size] if isinstance(where, InFile) else None
        for name, where in row.media.items()
    }
    inline: dict[str, bytes | None] = {
        name: body for name, body in row.media.items() if isinstance(body, bytes)
    }
    return {"about": _dumped(_about(row) | {"media": places}), **inline}


def _row(entry: dict[str, Any]) -> Row:
    about = json.loads(entry["about"])
    media: dict[Modality, bytes | InFile] = {}
    for name, place in about["media"].items():
        media[name] = entry[name] if place is None else InFile(Path(place[0]), place[1], place[2])
    return replace(_of_about(about), media=media)


def _about(row: Row) -> dict[str, Any]:
    return {
        "position": row.position,
        "id": row.id,
        "original": row.original,
        "base": str(row.base),
        "share": row.share,
        "problem": None if row.problem is None else [row.problem.code, row.problem.reason],
    }


def _of_about(about: dict[str, Any]) -> Row:
    problem = None if about["problem"] is None else Unreadable(*about["problem"])
    base = Path(about["base"])
    return Row(about["position"], about["id"], about["original"], base, {}, about["share"], problem)


# --- outcomes ---------------------------------------------------------------------------------------


def _of_outcome(outcome: Outcome) -> dict[str, Any]:
    """Of a row that was answered, what the output needs of it."""
    if isinstance(outcome, Scored):
        told = replace(outcome.row, original=None, base=Path())
        return {"row": _about(told), "answer": outcome.answer, "seconds": outcome.seconds}
    failed = {
        "stage": outcome.stage,
        "code": outcome.code,
        "reason": outcome.reason,
        "attempts": outcome.attempts,
        "seconds": outcome.seconds,
    }
    return {"row": _about(outcome.row), "failed": failed}


def _outcome(said: dict[str, Any]) -> Outcome:
    row = _of_about(said["row"])
    if "answer" in said:
        return Scored(row, said["answer"], said["seconds"])
    return Failed(row, **said["failed"])


def _dumped(value: object) -> bytes:
    return json.dumps(value, default=json_bytes).encode()
