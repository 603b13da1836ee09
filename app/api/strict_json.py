"""JSON from strangers: bounded, UTF-8, no NaN, no name twice; checked against a schema where there is one."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from app.api.errors import Refusal

# Nothing else runs in Python while JSON is parsed. That takes 0.3 us a value and nothing for a long string,
# so these many values are 0.1 s.
JSON_VALUES: Final = 2**18

Body = TypeVar("Body", bound=BaseModel)


def parse_json(body: bytes) -> Any:
    """Raises Refusal body_too_large, or bad_request; also for a nesting that only an attack has."""
    if sum(map(body.count, (b",", b"[", b"{"))) > JSON_VALUES:
        raise Refusal("body_too_large", f"The JSON has more than {JSON_VALUES} values. Send fewer at once.")
    try:
        return json.loads(body.decode(), parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        message = "The JSON cannot be parsed, is nested too deeply, or has a name twice."
        raise Refusal("bad_request", message) from error


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
