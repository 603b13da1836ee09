"""JSON from strangers: UTF-8, no NaN, no name twice, checked against a schema that knows every entry."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from app.api.errors import Refusal

Body = TypeVar("Body", bound=BaseModel)


def parse_json(body: bytes) -> Any:
    """Raises Refusal bad_request; also for a nesting so deep that only an attack has it."""
    try:
        return json.loads(body.decode(), parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Refusal("bad_request", "The body is not JSON. Build it with a JSON library.") from error


def validate(schema: type[Body], value: object) -> Body:
    """Raises Refusal invalid_parameter, with the first entry that is wrong."""
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        known = [str(step) for step in first["loc"] if isinstance(step, int) or step in schema.model_fields]
        place = ".".join(known)
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(schema.model_fields)
            raise Refusal("invalid_parameter", f"There is an unknown entry. Use {allowed}.") from error
        raise Refusal(
            "invalid_parameter", f"{place or 'The value'}: {first['msg']}.", part=place or None
        ) from error


def _refuse(_: str) -> NoReturn:
    raise ValueError("NaN and infinity are no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name stands twice")
    return entries
