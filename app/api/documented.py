"""The error answers of a route, for OpenAPI."""

from __future__ import annotations

from collections import defaultdict
from http import HTTPStatus
from typing import Any

from app.api.errors import CATALOGUE
from app.api.schemas import Problem

# what any request may get, from the connection or in front of the route
_ANYWHERE = ("bad_request", "request_timeout", "headers_too_large", "internal", "overloaded")
_WAITS = (HTTPStatus.SERVICE_UNAVAILABLE,)  # statuses that say when to come back
_STRING = {"schema": {"type": "string"}}


def problems(*named: str) -> dict[int | str, dict[str, Any]]:
    """For each status of the named codes: the problem schema, and every catalogue code of that status."""
    codes = defaultdict(list)
    for code, entry in CATALOGUE.items():
        codes[entry.status].append(code)
    statuses = sorted({CATALOGUE[code].status for code in (*_ANYWHERE, *named)})
    return {status: _answer(status, codes[status]) for status in statuses}


def _answer(status: int, codes: list[str]) -> dict[str, Any]:
    headers = {"X-Request-Id": _STRING} | ({"Retry-After": _STRING} if status in _WAITS else {})
    return {
        "description": " · ".join(f"`{code}`: {CATALOGUE[code].title.lower()}" for code in codes),
        "headers": headers,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
