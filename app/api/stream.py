"""POST /v1/predict/stream: a row a line in, its answer a line out as soon as it is there."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.api.bodies import refuse_packed
from app.api.documented import inlined, problems
from app.api.errors import Refusal
from app.api.parameters import DEADLINE, FIELDS, read_parameters, read_query
from app.api.row_stream import NDJSON, RowStream
from app.api.rows import RowBody
from app.api.service import Service

_ROWS = [{"$ref": f"#/components/schemas/{name}"} for name in ("RowPrediction", "RowFailure")]
_FRAMING_BYTES = 4096  # of a line: names, quotes, the id


def stream_router(service: Service, *, most_rows: int) -> APIRouter:
    """The route. Each stream has at most `most_rows` on the way."""
    router = APIRouter(tags=["predict"])
    query = [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in FIELDS.items()
    ]

    @router.post(
        "/v1/predict/stream",
        operation_id="predict_stream",
        summary="Predict for any number of rows, line by line",
        response_class=Response,
        responses=problems("model_not_found", "unsupported_media_type", "invalid_parameter")
        | {
            200: {
                "description": "A line of JSON for each row, in the order in which they are done.",
                "content": {NDJSON: {"schema": {"anyOf": _ROWS}}},
            }
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "A line of JSON for each row.",
                "content": {NDJSON: {"schema": inlined(RowBody)}},
            },
            "parameters": [DEADLINE, *query],
        },
    )
    async def predict_stream(request: Request) -> Response:
        refuse_packed(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != NDJSON:
            raise Refusal("unsupported_media_type", f"Send the rows as {NDJSON}, one a line.")
        parameters = read_parameters(read_query(request, allowed=FIELDS))
        service.question(parameters)  # what is wrong for every row is wrong before the first
        return RowStream(
            service,
            parameters,
            timeout_s=service.patience.of(request, otherwise_s=service.patience.most_s),
            most_rows=most_rows,
            line_bytes=_line_bytes(service.media_bytes),
        )

    return router


def _line_bytes(media_bytes: dict[str, int]) -> int:
    """Most bytes of a row: base64 makes 4 of 3, JSON 6 of a character that it escapes."""
    in_json = {"text": 6.0}
    return _FRAMING_BYTES + sum(
        int(most * in_json.get(name, 4 / 3)) + 4 for name, most in media_bytes.items()
    )
