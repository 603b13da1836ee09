"""POST /v1/predict: a form of image, text and audio in, one fused prediction out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api import schemas
from app.api.deadline import Patience
from app.api.documented import problems
from app.api.engine_metrics import count_answer
from app.api.errors import Refusal
from app.api.forms import announced_bytes, read_form
from app.api.leaving import unless_gone
from app.bundle.interpret import ClassProbability
from app.bundle.manifest import MODALITIES, Manifest
from app.bundle.sample import RawInputs
from app.metrics import Metrics
from app.serving.engine import Answer, Engine
from app.serving.model import LiveModel
from app.serving.repository import Repository
from app.serving.schedule import Priority

_PARAMETER_BYTES = 64
_DEADLINE = {
    "name": "X-Request-Deadline-Ms",
    "in": "header",
    "required": False,
    "description": "Refuse or give up when the answer would take longer than this.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}
_DEFAULT_TOP_K = 5

# FastAPI cannot see a form that is read from the stream.
_PROPERTIES: dict[str, dict[str, Any]] = {
    "image": {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP."},
    "text": {"type": "string", "minLength": 1, "description": "UTF-8."},
    "audio": {"type": "string", "format": "binary", "description": "WAV, FLAC, OGG or MP3."},
    "model": {"type": "string", "description": "Name of a served model; needed if there are several."},
    "version": {
        "anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["stable", "canary"]}],
        "description": "A number or a label; what the model's plan picks, if left out.",
    },
    "top_k": {"type": "integer", "minimum": 1, "description": "How many classes to list."},
}
_SCHEMA = {
    "type": "object",
    "description": "At least one of the modalities. GET /v1/models says how large each may be.",
    "properties": _PROPERTIES,
    "additionalProperties": False,
}
_FORM = {"required": True, "content": {"multipart/form-data": {"schema": _SCHEMA}}}


def predict_router(
    engine: Engine, repository: Repository, metrics: Metrics, *, patience: Patience
) -> APIRouter:
    """The route, over live models."""
    router = APIRouter(tags=["predict"])

    @router.post(
        "/v1/predict",
        operation_id="predict",
        summary="Predict from an image, a text, a recording, or any of them",
        response_model=schemas.Prediction,
        responses=problems(
            "bad_multipart", "model_not_found", "body_too_large", "unsupported_media_type", "no_modality",
            "internal", "overloaded", "deadline_exceeded",
        ),
        openapi_extra={"requestBody": _FORM, "parameters": [_DEADLINE]},
    )  # fmt: skip
    async def predict(request: Request) -> Response:
        repository.require_live()
        limits = _form_limits(model.manifest for model in repository)
        with engine.admit(
            repository.expected_costs(),
            priority=Priority.INTERACTIVE,
            timeout_s=patience.of(request),
            size_bytes=announced_bytes(request, limits),
        ) as place:
            form = await read_form(request, limits)
            model = repository.find(_name(form), _version(form))
            labels = len(model.manifest.labels)
            top_k = _integer(form, "top_k", most=labels) or min(_DEFAULT_TOP_K, labels)
            raw = RawInputs(image=form.get("image"), text=form.get("text"), audio=form.get("audio"))
            answer = await unless_gone(request, place.answer(model, raw, top_k=top_k))
        count_answer(metrics, model, answer)
        body = _body(answer, model, request_id=request.state.request_id, started_s=request.state.started_s)
        return Response(body.model_dump_json(), media_type="application/json")

    return router


def _form_limits(manifests: Iterable[Manifest]) -> dict[str, int]:
    """Most bytes of each part: as much as the most generous live model reads of it."""
    limits: dict[str, int] = {}
    for inputs in (manifest.inputs for manifest in manifests):
        for name in inputs.names:
            limits[name] = max(limits.get(name, 0), inputs.encoder(name).max_bytes)
    parameters: dict[str, int] = dict.fromkeys(("model", "version", "top_k"), _PARAMETER_BYTES)
    return {name: limits[name] for name in MODALITIES if name in limits} | parameters


def _name(form: Mapping[str, bytes]) -> str | None:
    body = form.get("model")
    return None if body is None else body.decode("utf-8", errors="replace")


def _version(form: Mapping[str, bytes]) -> int | str | None:
    """A number, or the label stable or canary."""
    label = form.get("version", b"")
    return label.decode() if label in (b"stable", b"canary") else _integer(form, "version", most=2**31)


def _integer(form: Mapping[str, bytes], name: str, *, most: int) -> int | None:
    body = form.get(name)
    if body is None:
        return None
    # isdigit of bytes means ASCII digits; of str it would mean any script's
    if not body.isdigit() or not 1 <= int(body) <= most:
        raise Refusal("invalid_parameter", f"{name} must be a whole number from 1 to {most}.", part=name)
    return int(body)


def _body(answer: Answer, model: LiveModel, *, request_id: str, started_s: float) -> schemas.Prediction:
    manifest, prediction, timings = model.manifest, answer.prediction, answer.timings
    return schemas.Prediction(
        request_id=request_id,
        model=schemas.ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest),
        label=prediction.best.label,
        probability=prediction.best.probability,
        top=[_class(one) for one in prediction.top],
        modalities=schemas.Modalities(used=list(prediction.used), missing=list(prediction.missing)),
        by_modality={name: _class(one) for name, one in prediction.by_modality.items()},
        warnings=[schemas.InputWarning(**asdict(warning)) for warning in answer.warnings],
        timings_ms=schemas.Timings(
            decode=_ms(timings.decode_s),
            queue=_ms(timings.queue_s),
            run=_ms(timings.run_s),
            total=_ms(time.perf_counter() - started_s),
        ),
        batch_size=answer.batch_size,
    )


def _class(one: ClassProbability) -> schemas.ClassProbability:
    return schemas.ClassProbability(label=one.label, probability=one.probability)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
