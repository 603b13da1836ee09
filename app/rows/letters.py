"""What is said of a row that has no answer, with the row itself, so that a file of these can be an input."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from app.rows.row import Row

Stage = Literal["read", "decode", "predict", "write"]


def dead_letter(
    row: Row, *, stage: Stage, code: str, reason: str, attempts: int, at: datetime
) -> dict[str, Any]:
    """`code` is a reader's, or stands in docs/http.md."""
    return {
        "id": row.id,
        "position": row.position,
        "stage": stage,
        "code": code,
        "reason": reason,
        "attempts": attempts,
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "base": str(row.base),
        "row": row.original,
    }
