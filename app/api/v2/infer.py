"""POST …/infer: tensors in, tensors out, every row through the engine."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.documented import inlined
from app.api.v2.bodies import respond
from app.api.v2.outputs import check_json_size, encode_answer
from app.api.v2.paths import asked_model, on_model
from app.api.v2.requests import HEADER, parse_request
from app.api.v2.rows import rows_of
from app.api.v2.schemas import InferRequest, InferResponse
from app.api.v2.service import Service, Wish


def infer_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["v2"])

    @on_model(
        router,
        "POST",
        "/infer",
        operation_id="v2_infer",
        statuses=(400, 404, 413, 503, 504),
        described={"requestBody": _body_schema()},
        response_model=InferResponse,
        summary="Predict rows of tensors",
    )
    async def infer(request: Request) -> Response:
        """Tensors may follow the JSON as raw bytes: `Inference-Header-Content-Length` is where it ends."""
        model = asked_model(service.repository, request)
        with ExitStack() as held:
            body = await service.read(request, model, held)
            model = asked_model(service.repository, request)
            with service.statistics.request(model) as spent:
                asked = parse_request(
                    body, request.headers.get(HEADER), model.manifest, max_rows=service.limits.rows
                )
                check_json_size(asked, model.manifest)
                rows = rows_of(asked.inputs, asked.rows, model)
                wish = Wish(asked.priority, asked.timeout_s)
                spent.answers = await service.answer(
                    request, model, rows, held, wish=wish, body_bytes=len(body)
                )
                started_s = time.perf_counter()
                encoded = encode_answer(asked, [answer.outputs for answer in spent.answers], model.manifest)
                spent.encode_s = time.perf_counter() - started_s
        return respond(request, encoded.body, encoded.headers)

    return router


def _body_schema() -> dict[str, Any]:
    return {
        "required": True,
        "content": {
            "application/json": {"schema": inlined(InferRequest)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
