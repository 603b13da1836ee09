"""POST /v1/predict: a form of image, text and audio in, one fused prediction out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api import answers, schemas
from app.api.bodies import announced_bytes
from app.api.documented import problems
from app.api.forms import FormCaps, read_form
from app.api.leaving import unless_gone
from app.api.parameters import DEADLINE, FIELDS, PARAMETER_BYTES, PRIORITY, read_parameters, read_priority
from app.api.service import Service
from app.bundle.sample import RawInputs

MEDIA: dict[str, dict[str, Any]] = {
    "image": {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP."},
    "text": {"type": "string", "minLength": 1, "description": "UTF-8."},
    "audio": {"type": "string", "format": "binary", "description": "WAV, FLAC, OGG or MP3."},
}
_SCHEMA = {
    "type": "object",
    "description": "At least one of the modalities. GET /v1/models says how large each may be.",
    "properties": MEDIA | FIELDS,
    "additionalProperties": False,
}


def predict_router(service: Service) -> APIRouter:
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
        openapi_extra={
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _SCHEMA}}},
            "parameters": [DEADLINE, PRIORITY],
        },
    )  # fmt: skip
    async def predict(request: Request) -> Response:
        caps = FormCaps({**service.media_bytes, **dict.fromkeys(FIELDS, PARAMETER_BYTES)})
        size_bytes = announced_bytes(request, most=caps.total)
        with service.admit(request, priority=read_priority(request), size_bytes=size_bytes) as place:
            form = await read_form(request, caps)
            question = service.question(read_parameters(form))
            raw = RawInputs(image=form.get("image"), text=form.get("text"), audio=form.get("audio"))
            answer = await unless_gone(request, service.answer(place, question, raw))
        state = request.state
        body = answers.prediction(
            answer, question.model, request_id=state.request_id, started_s=state.started_s
        )
        return Response(body.model_dump_json(), media_type="application/json")

    return router
