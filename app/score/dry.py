"""`--dry-run`: read the whole input as a run would, ask nobody, and say what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from app.rows.errors import Unreadable
from app.rows.row import InFile, Row
from app.rows.seen import SeenIds

_SHOWN: Final = 10


@dataclass(slots=True)
class Survey:
    """What an input holds. Of rows that would fail or have an id again, the first ten are named."""

    rows: int = 0
    subsets: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    duplicates: int = 0
    first_unreadable: list[dict[str, Any]] = field(default_factory=list)
    first_duplicates: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "subsets": dict(self.subsets.most_common()),
            "unreadable": self.unreadable,
            "first_unreadable": self.first_unreadable,
            "duplicates": self.duplicates,
            "first_duplicates": self.first_duplicates,
        }


def survey(rows: Iterable[Row]) -> Survey:
    """Media are looked up but not read."""
    found, seen = Survey(), SeenIds()
    for row in rows:
        found.rows += 1
        if not seen.is_new(row.id):
            found.duplicates += 1
            if len(found.first_duplicates) < _SHOWN:
                found.first_duplicates.append(row.id)
        problem = row.problem or _missing(row)
        if problem is None:
            found.subsets["+".join(row.media)] += 1
            continue
        found.unreadable += 1
        if len(found.first_unreadable) < _SHOWN:
            said = {"id": row.id, "position": row.position, "code": problem.code, "reason": problem.reason}
            found.first_unreadable.append(said)
    return found


def _missing(row: Row) -> Unreadable | None:
    for where in row.media.values():
        if isinstance(where, InFile):
            try:
                where.check()
            except Unreadable as problem:
                return problem
    return None
