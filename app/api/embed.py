"""POST /v1/embed: the form of /v1/predict in, the fused embedding and each modality's features out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.api import answers, schemas
from app.api.documented import problems
from app.api.leaving import unless_gone
from app.api.one_row import form_body, received
from app.api.parameters import DEADLINE, ENCODING, FIELDS, PRIORITY, read_parameters, wants_base64
from app.api.service import Service

_OF_PREDICTIONS = ("top_k", "explain")
_FIELDS = {name: about for name, about in FIELDS.items() if name not in _OF_PREDICTIONS} | {
    "encoding": ENCODING
}


def embed_router(service: Service) -> APIRouter:
    """The route, over live models."""
    router = APIRouter(tags=["embed"])

    @router.post(
        "/v1/embed",
        operation_id="embed",
        summary="Turn an image, a text, a recording, or any of them into vectors",
        response_model=schemas.Embedding,
        responses=problems(
            "bad_multipart", "model_not_found", "body_too_large", "unsupported_media_type", "no_modality",
            "internal", "overloaded", "deadline_exceeded",
        ),
        openapi_extra={"requestBody": form_body(_FIELDS), "parameters": [DEADLINE, PRIORITY]},
    )  # fmt: skip
    async def embed(request: Request) -> Response:
        async with received(request, service, fields=_FIELDS) as row:
            question, as_base64 = service.question(read_parameters(row.fields)), wants_base64(row.fields)
            answer = await unless_gone(request, service.answer(row.place, question, row.raw))
        state = request.state
        body = answers.embedding(
            answer,
            question.model,
            as_base64=as_base64,
            request_id=state.request_id,
            started_s=state.started_s,
        )
        return answers.response(body)

    return router
