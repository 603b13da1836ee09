"""POST /v1/predict/batch: many rows in one request, as JSON or as a form; each has a status of its own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field
from python_multipart.multipart import parse_options_header

from app.api import answers, schemas
from app.api.bodies import announced_bytes, read_body
from app.api.documented import inlined, problems
from app.api.errors import Refusal
from app.api.forms import FormCaps, read_form, row_place
from app.api.leaving import unless_gone
from app.api.one_row import MEDIA
from app.api.parameters import (
    DEADLINE,
    FIELDS,
    PARAMETER_BYTES,
    PRIORITY,
    Parameters,
    read_parameters,
    read_query,
)
from app.api.rows import Row, RowBody, answer_rows, form_row, json_row
from app.api.service import Service
from app.api.strict_json import parse_json, validate

MAX_ROWS: Final = 1024  # of one request; a stream has no such bound
MAX_BYTES: Final = 32 * 2**20  # of one request: 1,024 rows of 32 KiB
_ROW_PARTS = ("id", *MEDIA)


class BatchBody(Parameters):
    """A batch in JSON. Rows are checked one by one, so that a bad one fails alone."""

    rows: list[Any] = Field(min_length=1)


_JSON_SCHEMA = inlined(BatchBody)
_JSON_SCHEMA["properties"]["rows"] |= {"items": inlined(RowBody), "maxItems": MAX_ROWS}
_FORM_SCHEMA = {
    "type": "object",
    "description": "Parts named rows[0].image, rows[0].text and so on, rows counted from 0 without gaps.",
    "properties": FIELDS,
    "patternProperties": {
        rf"^rows\[[0-9]+\]\.{name}$": about for name, about in (MEDIA | {"id": {"type": "string"}}).items()
    },
    "additionalProperties": False,
}


def batch_router(service: Service, *, max_rows: int) -> APIRouter:
    """The route. `max_rows` are let in at once; a request of more could never be answered."""
    router = APIRouter(tags=["predict"])
    most = min(MAX_ROWS, max_rows)

    @router.post(
        "/v1/predict/batch",
        operation_id="predict_batch",
        summary="Predict for many rows at once",
        response_model=schemas.BatchPrediction,
        responses=problems(
            "bad_multipart", "model_not_found", "body_too_large", "unsupported_media_type",
            "invalid_parameter", "internal", "overloaded", "deadline_exceeded",
        ),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": _JSON_SCHEMA},
                    "multipart/form-data": {"schema": _FORM_SCHEMA},
                },
            },
            "parameters": [DEADLINE, PRIORITY],
        },
    )  # fmt: skip
    async def predict_batch(request: Request) -> Response:
        read_query(request, allowed=())
        state = request.state
        size_bytes = announced_bytes(request, most=MAX_BYTES)
        with service.admit_request(request, size_bytes=size_bytes) as place:
            parameters, rows = await _read(request, most)
            question = service.question(parameters)
            with place.with_more(len(rows)) as places:
                work = answer_rows(service, places, question, rows, started_s=state.started_s)
                answered = await unless_gone(request, work)
        body = schemas.BatchPrediction.model_construct(  # of parts that are checked
            request_id=state.request_id, model=answers.model_ref(question.model), rows=answered
        )
        return Response(body.model_dump_json(exclude_none=True), media_type="application/json")

    return router


async def _read(request: Request, most: int) -> tuple[Parameters, list[Row]]:
    """Raises Refusal: the request as a whole is wrong."""
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind == b"application/json":
        body = await read_body(request, most=MAX_BYTES)
        return await asyncio.to_thread(_from_json, body, most)  # megabytes: the event loop goes on
    if kind == b"multipart/form-data":
        return await _from_form(request, most)
    raise Refusal("unsupported_media_type", "Send the rows as application/json or multipart/form-data.")


def _from_json(body: bytes, most: int) -> tuple[Parameters, list[Row]]:
    batch = validate(BatchBody, parse_json(body))
    if len(batch.rows) > most:
        raise _too_many(most)
    return batch, [json_row(value, index=index) for index, value in enumerate(batch.rows)]


async def _from_form(request: Request, most: int) -> tuple[Parameters, list[Row]]:
    parameters = dict.fromkeys(FIELDS, PARAMETER_BYTES)
    form = await read_form(
        request, FormCaps(parameters, row_parts=_ROW_PARTS, max_rows=most, rows_bytes=MAX_BYTES)
    )
    rows: defaultdict[int, dict[str, bytes]] = defaultdict(dict)
    for name, body in form.items():
        place = row_place(name)
        if place is not None:
            rows[place[0]][place[1]] = body
    if set(rows) != set(range(len(rows))) or not rows:
        raise Refusal("invalid_parameter", "Count the rows from rows[0] on, without gaps.", part="rows")
    return read_parameters(form), [form_row(rows[index], index=index) for index in range(len(rows))]


def _too_many(most: int) -> Refusal:
    return Refusal("invalid_parameter", f"There are more than {most} rows. Send fewer at once.", part="rows")
