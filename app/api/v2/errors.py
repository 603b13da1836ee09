"""Errors as clients of the protocol read them: `{"error": "…"}` and a status.

The status is the catalogue's, except that an input that cannot be read is 400: the protocol has neither 415
nor 422.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

from app.api.v2 import schemas

_UNREADABLE: Final = (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)


def speaks_protocol(path: str) -> bool:
    """Whether who asks for this path expects this kind of error."""
    return path == "/v2" or path.startswith("/v2/") or path.endswith(":predict")


def protocol_error(status: int, message: str, headers: Mapping[str, str] | None) -> Response:
    known = HTTPStatus.BAD_REQUEST if status in _UNREADABLE else status
    return Response(json.dumps({"error": message}), known, headers, media_type="application/json")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for OpenAPI."""
    content = {"application/json": {"schema": schemas.Error.model_json_schema()}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in (*statuses, HTTPStatus.INTERNAL_SERVER_ERROR)
    }
