"""POST /v1/models/{name}:predict: KServe's first protocol, for clients that still speak it."""

from __future__ import annotations

import base64
import binascii
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api import answers
from app.api.documented import inlined
from app.api.errors import Refusal
from app.api.schemas import PredictionSet
from app.api.v2.bodies import load_json
from app.api.v2.errors import refusals
from app.api.v2.rows import Row
from app.api.v2.service import Service
from app.bundle.sample import RawInputs
from app.serving.engine import Answer


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Media(_Asked):
    b64: str = Field(description="An encoded file, as base64.")


class Instance(_Asked):
    """At least one of them."""

    image: Media | None = None
    text: str | None = None
    audio: Media | None = None


class Instances(_Asked):
    instances: Annotated[list[Instance], Field(min_length=1)]


class Predicted(BaseModel):
    label: str
    probability: float
    probabilities: dict[str, float] = Field(description="Of every class, by its label.")
    labels: list[str] | None = Field(
        None, description="Of a multilabel model: every label that reaches its threshold, best first."
    )
    prediction_set: PredictionSet | None = Field(None, description="Of a model with conformal sets.")


class Predictions(BaseModel):
    predictions: list[Predicted]


def instances_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["v1"])
    body_schema = {"required": True, "content": {"application/json": {"schema": inlined(Instances)}}}

    @router.post(
        "/v1/models/{name}:predict",
        operation_id="kserve_predict",
        summary="Predict instances, as KServe's first protocol asks",
        responses=refusals(400, 404, 413, 503, 504),
        response_model_exclude_none=True,
        openapi_extra={"requestBody": body_schema},
    )
    async def predict(name: str, request: Request) -> Predictions:
        model = service.repository.find(name)
        with ExitStack() as held:
            body = await service.read(request, model, held)
            model = service.repository.find(name)
            with service.statistics.request(model) as spent:
                rows = _rows(load_json(body), max_rows=service.limits.rows)
                spent.answers = await service.answer(request, model, rows, held, body_bytes=len(body))
        labels = model.manifest.labels
        return Predictions(predictions=[_predicted(answer, labels) for answer in spent.answers])

    return router


def _rows(content: Any, *, max_rows: int) -> list[Row]:
    try:
        instances = Instances.model_validate(content).instances
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        kind = "an unknown member" if first["type"] == "extra_forbidden" else first["msg"]
        raise Refusal("bad_request", f"An instance cannot be read: {kind}.") from error
    if len(instances) > max_rows:
        raise Refusal("bad_request", f"One request holds at most {max_rows} instances. Send several.")
    return [Row(_raw(instance, index)) for index, instance in enumerate(instances)]


def _raw(instance: Instance, index: int) -> RawInputs:
    try:
        return RawInputs(
            image=_file(instance.image),
            text=None if instance.text is None else instance.text.encode(),
            audio=_file(instance.audio),
        )
    except (binascii.Error, ValueError) as error:
        raise Refusal("bad_request", f"Row {index}: media are base64, and text is Unicode.") from error


def _file(media: Media | None) -> bytes | None:
    return None if media is None else base64.b64decode(media.b64, validate=True)


def _predicted(answer: Answer, labels: tuple[str, ...]) -> Predicted:
    prediction = answer.prediction
    values: list[float] = answer.outputs.probabilities.tolist()
    return Predicted(
        label=prediction.best.label,
        probability=prediction.best.probability,
        probabilities=dict(zip(labels, values, strict=True)),
        labels=None if prediction.labels is None else [one.label for one in prediction.labels],
        prediction_set=answers.wire_set(prediction.prediction_set),
    )
