"""What a request asks for beside its inputs: which model, how much of its answer, how urgently."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from app.api.errors import Refusal
from app.serving.schedule import Priority

PARAMETER_BYTES: Final = 64
_MOST = 2**31
Label = Literal["stable", "canary"]
Version = Annotated[int, Field(ge=1, le=_MOST)] | Label
TopK = Annotated[int, Field(ge=1, le=_MOST)]
_PRIORITY = "x-request-priority"

# As OpenAPI shows them: FastAPI cannot see a form that is read from the stream.
FIELDS: Final[dict[str, dict[str, Any]]] = {
    "model": {"type": "string", "description": "Name of a served model; needed if there are several."},
    "version": {
        "anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["stable", "canary"]}],
        "description": "A number or a label; what the model's plan picks, if left out.",
    },
    "top_k": {"type": "integer", "minimum": 1, "description": "How many classes to list."},
    "cache": {"type": "boolean", "description": "Use and feed the server's cache of encoded inputs."},
    "explain": {"type": "boolean", "description": "Say what each modality contributes to the answer."},
}
ENCODING: Final[dict[str, Any]] = {
    "type": "string",
    "enum": ["float", "base64"],
    "description": "Vectors as lists of numbers, or as base64 of little-endian float32.",
}
DEADLINE: Final = {
    "name": "X-Request-Deadline-Ms",
    "in": "header",
    "required": False,
    "description": "Refuse or give up when the answer would take longer than this.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}
PRIORITY: Final = {
    "name": "X-Request-Priority",
    "in": "header",
    "required": False,
    "description": "Rows of class batch use what interactive ones leave, and a tenth in any case.",
    "schema": {"type": "string", "enum": [priority.value for priority in Priority]},
}


class Parameters(BaseModel):
    """The fields of a form, the query of a stream, or the entries of a JSON body."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = Field(None, max_length=PARAMETER_BYTES)
    version: Version | None = None
    top_k: TopK | None = None
    cache: bool = Field(default=False, description="Use and feed the server's cache of encoded inputs.")
    explain: bool = Field(default=False, description="Say what each modality contributes to the answer.")


def read_parameters(fields: Mapping[str, bytes]) -> Parameters:
    """From text, as forms and queries carry it. Raises Refusal invalid_parameter."""
    model = fields.get("model")
    return Parameters(
        model=None if model is None else model.decode("utf-8", errors="replace"),
        version=_version(fields),
        top_k=_whole_number(fields, "top_k"),
        cache=_choice(fields, "cache", ("false", "true")) == "true",
        explain=_choice(fields, "explain", ("false", "true")) == "true",
    )


def read_query(request: Request, *, allowed: Collection[str]) -> dict[str, bytes]:
    """The query as fields. Raises Refusal invalid_parameter for one that is unknown or said twice."""
    said = request.query_params.multi_items()
    fields = {name: value.encode(errors="replace") for name, value in said}
    if fields and not allowed:
        raise Refusal("invalid_parameter", "The body has the parameters here. Leave the query out.")
    if len(fields) != len(said) or not fields.keys() <= set(allowed):
        raise Refusal("invalid_parameter", f"The query may have {', '.join(allowed)}, each once.")
    return fields


def wants_base64(fields: Mapping[str, bytes]) -> bool:
    """Of vectors. Raises Refusal invalid_parameter."""
    return _choice(fields, "encoding", ("float", "base64")) == "base64"


def read_priority(request: Request) -> Priority:
    """From the X-Request-Priority header. Raises Refusal invalid_parameter."""
    said = request.headers.get(_PRIORITY, Priority.INTERACTIVE.value)
    if said not in list(Priority):
        raise Refusal("invalid_parameter", "The priority is interactive or batch.", part=_PRIORITY)
    return Priority(said)


def _version(fields: Mapping[str, bytes]) -> int | Label | None:
    match fields.get("version"):
        case b"stable":
            return "stable"
        case b"canary":
            return "canary"
        case _:
            return _whole_number(fields, "version")


def _whole_number(fields: Mapping[str, bytes], name: str) -> int | None:
    body = fields.get(name)
    if body is None:
        return None
    # isdigit of bytes means ASCII digits; of str it would mean any script's
    if not body.isdigit() or len(body) > 10 or not 1 <= int(body) <= _MOST:
        raise Refusal("invalid_parameter", f"{name} must be a whole number, at least 1.", part=name)
    return int(body)


def _choice(fields: Mapping[str, bytes], name: str, choices: tuple[str, ...]) -> str:
    """One of these; the first, if nothing is said."""
    said = fields.get(name, choices[0].encode()).decode("latin-1")
    if said not in choices:
        raise Refusal("invalid_parameter", f"{name} is {' or '.join(choices)}.", part=name)
    return said
