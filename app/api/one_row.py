"""A form that holds one row: image, text and audio, and how they are to be answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request

from app.api.bodies import announced_bytes
from app.api.forms import FormCaps, read_form
from app.api.parameters import PARAMETER_BYTES, read_query
from app.api.service import Service
from app.bundle.sample import RawInputs
from app.serving.engine import Place

MEDIA: Final[dict[str, dict[str, Any]]] = {
    "image": {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP."},
    "text": {"type": "string", "minLength": 1, "description": "UTF-8."},
    "audio": {"type": "string", "format": "binary", "description": "WAV, FLAC, OGG or MP3."},
}


@dataclass(frozen=True, slots=True)
class Received:
    """A row whose form is in, and its place in the engine."""

    place: Place
    raw: RawInputs
    fields: Mapping[str, bytes]


@asynccontextmanager
async def received(
    request: Request, service: Service, *, fields: Mapping[str, Any]
) -> AsyncIterator[Received]:
    """Let the row in, then read its form: the modalities, and no other parts than `fields`.

    Raises what read_query, Service.admit_request and read_form raise.
    """
    read_query(request, allowed=())
    service.repository.require_live()
    caps = FormCaps({**service.media_bytes, **dict.fromkeys(fields, PARAMETER_BYTES)})
    size_bytes = announced_bytes(request, most=caps.total)
    with service.admit_request(request, size_bytes=size_bytes) as place:
        form = await read_form(request, caps)
        yield Received(place, raw_inputs(form), form)


def raw_inputs(parts: Mapping[str, bytes]) -> RawInputs:
    return RawInputs(image=parts.get("image"), text=parts.get("text"), audio=parts.get("audio"))


def form_body(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Such a form for OpenAPI: FastAPI cannot see one that is read from the stream."""
    schema = {
        "type": "object",
        "description": "At least one of the modalities. GET /v1/models says how large each may be.",
        "properties": {**MEDIA, **fields},
        "additionalProperties": False,
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
