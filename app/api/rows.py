"""One of many rows: read, answered or refused on its own. For the batch and the stream."""

from __future__ import annotations

import asyncio
import binascii
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api import answers, schemas
from app.api.errors import Refusal, fault, row_problem
from app.api.one_row import raw_inputs
from app.api.service import Question, Service
from app.api.strict_json import validate
from app.bundle.sample import RawInputs
from app.serving.engine import Answer, Place

log = logging.getLogger(__name__)

Base64 = Annotated[str, Field(description="base64, as RFC 4648 section 4 has it, with padding.")]


class _Named(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: str | None = Field(None, max_length=128, description="Comes back with the row's answer.")


class RowBody(_Named):
    """A row in JSON: at least one of image, text and audio."""

    model_config = ConfigDict(extra="forbid")

    image: Base64 | None = None
    text: str | None = None
    audio: Base64 | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it came. `refused` tells why it cannot be asked; its neighbours can."""

    index: int
    id: str | None = None
    raw: RawInputs = field(default_factory=RawInputs)
    refused: Refusal | None = None


def json_row(value: Any, *, index: int) -> Row:
    """A row from parsed JSON."""
    row_id: str | None = None
    try:
        row_id = validate(_Named, value).id
        body = validate(RowBody, value)
        image, audio = _decoded(body.image, "image"), _decoded(body.audio, "audio")
    except Refusal as refused:
        return Row(index, row_id, refused=refused)
    text = None if body.text is None else body.text.encode(errors="surrogatepass")  # refused when decoded
    return Row(index, row_id, RawInputs(image=image, text=text, audio=audio))


def form_row(parts: Mapping[str, bytes], *, index: int) -> Row:
    """A row from those parts of a form that belong to it."""
    try:
        row_id = validate(_Named, {"id": parts["id"].decode(errors="replace")}).id if "id" in parts else None
    except Refusal as refused:
        return Row(index, refused=refused)
    return Row(index, row_id, raw_inputs(parts))


async def answer_row(
    service: Service,
    place: Place,
    question: Question,
    row: Row,
    *,
    started_s: float,
    model: schemas.ModelRef | None = None,
) -> schemas.RowPrediction | schemas.RowFailure:
    """The row's answer, or what was wrong with it: no error of one row reaches the others.

    `model` is named in the answer where the request as a whole does not name it.
    """
    try:
        if row.refused is not None:
            raise row.refused
        answer = await service.answer(place, question, row.raw)
    except Exception as error:
        return fail_row(service, error, index=row.index, row_id=row.id)
    return answers.row_prediction(answer, index=row.index, row_id=row.id, started_s=started_s, model=model)


async def answer_rows(
    service: Service, places: Sequence[Place], question: Question, rows: Sequence[Row], *, started_s: float
) -> list[schemas.RowPrediction | schemas.RowFailure]:
    """The same for the rows of one request, together. Those that the cache may know go one by one."""
    if question.cached and service.engine.has_cache:
        each = zip(places, rows, strict=True)
        return await asyncio.gather(
            *(answer_row(service, place, question, row, started_s=started_s) for place, row in each)
        )
    asked = [row for row in rows if row.refused is None]

    def tell(index: int, answer: Answer | Exception) -> schemas.RowPrediction | schemas.RowFailure:
        row = asked[index]
        if isinstance(answer, Exception):
            return fail_row(service, answer, index=row.index, row_id=row.id)
        return answers.row_prediction(answer, index=row.index, row_id=row.id, started_s=started_s, model=None)

    inputs = [(places[row.index], row.raw) for row in asked]
    told = iter(await service.answers(question, inputs, tell))
    return [
        next(told) if row.refused is None else fail_row(service, row.refused, index=row.index, row_id=row.id)
        for row in rows
    ]


def fail_row(
    service: Service, error: Exception, *, index: int, row_id: str | None = None
) -> schemas.RowFailure:
    """What to say of a row that failed. Counts it."""
    known = fault(error)
    service.metrics.row_failures.labels(known.code).inc()
    if known.code == "internal":
        log.error("a row failed", exc_info=error)
    return schemas.RowFailure(index=index, id=row_id, status=known.status, error=row_problem(known))


def _decoded(text: str | None, part: str) -> bytes | None:
    try:
        return None if text is None else binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise Refusal(f"invalid_{part}", f"The {part} is not base64 with padding.", part=part) from error
