"""POST /v1/predict: a form of image, text and audio in, one fused prediction out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.api import answers, schemas
from app.api.documented import problems
from app.api.leaving import unless_gone
from app.api.one_row import form_body, received
from app.api.parameters import DEADLINE, FIELDS, PRIORITY, read_parameters
from app.api.service import Service


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
        openapi_extra={"requestBody": form_body(FIELDS), "parameters": [DEADLINE, PRIORITY]},
    )  # fmt: skip
    async def predict(request: Request) -> Response:
        async with received(request, service, fields=FIELDS) as row:
            question = service.question(read_parameters(row.fields))
            answer = await unless_gone(request, service.answer(row.place, question, row.raw))
        state = request.state
        body = answers.prediction(
            answer, question.model, request_id=state.request_id, started_s=state.started_s
        )
        return answers.response(body)

    return router
