"""The error answers of a route, for OpenAPI."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from app.api.errors import CATALOGUE
from app.api.schemas import Problem


def problems(*named: str) -> dict[int | str, dict[str, Any]]:
    """For each status of the named codes: the problem schema, and every catalogue code of that status."""
    codes = defaultdict(list)
    for code, entry in CATALOGUE.items():
        codes[entry.status].append(code)
    statuses = sorted({CATALOGUE[code].status for code in named})
    return {
        status: {
            "description": " · ".join(f"`{code}`: {CATALOGUE[code].title.lower()}" for code in codes[status]),
            "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
        }
        for status in statuses
    }
