"""The one table that turns errors into HTTP. No other file knows a status code for an error.

Bodies are RFC 9457 problem JSON with a stable `code`. A detail says what, which part and what to do; it
never holds an exception's own text, a path, an address or the payload.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from app.api.schemas import Problem, RowProblem
from app.api.v2.errors import protocol_error, speaks_protocol
from app.bundle import errors as bundle
from app.jobs import errors as jobs
from app.runtime import errors as runtime
from app.serving import errors as serving

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    status: int
    title: str


CATALOGUE: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "bad_request": Entry(400, "The request cannot be understood"),
        "bad_multipart": Entry(400, "The form is malformed"),
        "truncated_body": Entry(400, "The form ends before its closing boundary"),
        "unauthorized": Entry(401, "There is no valid key"),
        "forbidden": Entry(403, "The key may not do this"),
        "not_found": Entry(404, "There is nothing at this path"),
        "model_not_found": Entry(404, "No such model or version is served"),
        "job_not_found": Entry(404, "There is no such job"),
        "jobs_off": Entry(404, "This server takes no jobs"),
        "method_not_allowed": Entry(405, "The path does not answer this method"),
        "request_timeout": Entry(408, "The request arrived too slowly"),
        "load_failed": Entry(409, "The change of what is served could not be made"),
        "body_too_large": Entry(413, "The body is too large"),
        "part_too_large": Entry(413, "A part of the form is too large"),
        "image_too_large": Entry(413, "The image has too many pixels"),
        "audio_too_long": Entry(413, "The recording is too long"),
        "text_too_long": Entry(413, "The text is too long"),
        "unsupported_media_type": Entry(415, "The media type is not supported"),
        "no_modality": Entry(422, "The form holds nothing to predict from"),
        "invalid_image": Entry(422, "The image cannot be decoded"),
        "invalid_audio": Entry(422, "The recording cannot be decoded"),
        "invalid_text": Entry(422, "The text cannot be read"),
        "invalid_parameter": Entry(422, "A parameter is wrong"),
        "rate_limited": Entry(429, "The key is used too often"),
        "headers_too_large": Entry(431, "The request has too many or too large headers"),
        "internal": Entry(500, "The server failed"),
        "model_nonfinite": Entry(500, "The model gave no number for this row"),
        "overloaded": Entry(503, "Too much is waiting"),
        "jobs_unavailable": Entry(503, "Jobs cannot be kept at present"),
        "draining": Entry(503, "The server is stopping"),
        "not_ready": Entry(503, "The server is not ready"),
        "deadline_exceeded": Entry(504, "The time to answer is over"),
    }
)

_CODES: Final[Mapping[type[serving.ServingError | jobs.JobsError], str]] = MappingProxyType(
    {
        serving.Overloaded: "overloaded",
        serving.Draining: "draining",
        serving.NotReady: "not_ready",
        serving.DeadlineExceeded: "deadline_exceeded",
        serving.ModelNotFound: "model_not_found",
        serving.ModelAmbiguous: "invalid_parameter",
        serving.LoadFailed: "load_failed",
        jobs.JobNotFound: "job_not_found",
        jobs.TooLarge: "body_too_large",
        jobs.TooMany: "overloaded",
        jobs.ManifestRefused: "invalid_parameter",
        jobs.StoreFailed: "jobs_unavailable",
    }
)

METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_HTTP_CODES: Final = {404: "not_found", 405: "method_not_allowed"}
WAITS: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)  # these say when to come back


class Refusal(Exception):
    """A request refused by the HTTP floor itself, by catalogue code."""

    def __init__(self, code: str, message: str, *, part: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.part = part


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as the catalogue knows it. `retry_after_s` goes out, as whole seconds, with a 429 or 503."""

    code: str
    detail: str
    part: str | None = None
    retry_after_s: float = 1.0

    @property
    def status(self) -> int:
        return CATALOGUE[self.code].status


def fault(error: Exception) -> Fault:
    """What to tell the caller of an error; one that is in no table is a bug of ours."""
    match error:
        case Refusal():
            return Fault(error.code, error.message, error.part)
        case bundle.InputError():
            return Fault(error.code, error.message, error.part)
        case serving.ServingError() | jobs.JobsError():
            retry_after_s = getattr(error, "retry_after_s", 1.0)
            return Fault(_CODES[type(error)], error.message, error.part, retry_after_s)
        case runtime.NonFiniteOutput():
            return Fault("model_nonfinite", "The inputs are valid, but the model cannot rate them.")
        case ClientDisconnect():
            return Fault("truncated_body", "The connection closed before the body was complete.")
        case _:
            return Fault("internal", "Try again; if it stays, report the request id.")


def row_problem(fault: Fault) -> RowProblem:
    """What stands in the answer of a request of which only this row failed."""
    entry = CATALOGUE[fault.code]
    return RowProblem(
        type=f"urn:trichord:error:{fault.code}",
        title=entry.title,
        status=entry.status,
        detail=fault.detail,
        code=fault.code,
        part=fault.part,
    )


def problem(
    request: Request, code: str, detail: str, *, part: str | None = None, retry_after_s: float = 1.0
) -> Response:
    """The answer to a request that failed. Notes the code for the request's log line and metrics."""
    return _answer(request, Fault(code, detail, part, retry_after_s))


def _answer(request: Request, fault: Fault) -> Response:
    request.state.problem = fault.code
    wait = {"Retry-After": str(max(1, math.ceil(fault.retry_after_s)))}
    headers = wait if fault.status in WAITS else None
    if speaks_protocol(request.scope["path"]):
        return protocol_error(fault.status, fault.detail, headers)
    body = document(fault, request_id=request.state.request_id)
    return Response(body, fault.status, headers, media_type="application/problem+json")


def document(fault: Fault, *, request_id: str) -> str:
    """The body of a problem."""
    return Problem(**dict(row_problem(fault)), request_id=request_id).model_dump_json(exclude_none=True)


def install(app: FastAPI) -> None:
    """Answer every error that a route raises from the table."""

    def known(request: Request, error: Exception) -> Response:
        if isinstance(error, jobs.StoreFailed):  # whoever runs the server must act
            log.error("jobs cannot be kept", exc_info=error)
        return _answer(request, fault(error))

    def routing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "registered for this one"
        code = _HTTP_CODES.get(error.status_code, "bad_request")
        response = problem(request, code, "See /docs for the paths and methods that answer.")
        response.headers.update(error.headers or {})
        if code == "method_not_allowed":
            response.headers["Allow"] = ", ".join(_methods(request))
        return response

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError), "registered for this one"
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"][1:]) or str(first["loc"][0])
        return problem(request, "invalid_parameter", f"{where}: {first['msg']}.", part=where)

    def gone(request: Request, error: Exception) -> Response:
        """For the log and the metrics; the client is gone, or has its answer from the guard."""
        code = getattr(request.state, "refused", None)
        return _answer(request, replace(fault(error), code=code) if code else fault(error))

    for kind in (bundle.InputError, serving.ServingError, jobs.JobsError, Refusal, runtime.NonFiniteOutput):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(HTTPException, routing)
    app.add_exception_handler(RequestValidationError, invalid)


def _methods(request: Request) -> list[str]:
    """What this path answers, by all routes; the router itself names the methods of the first one only."""
    app: FastAPI = request.app
    asked = [dict(request.scope, method=method) for method in METHODS]
    answered = {
        scope["method"]
        for scope in asked
        if any(route.matches(scope)[0] is Match.FULL for route in app.routes)
    }
    return sorted(answered | {"HEAD"} if "GET" in answered else answered)  # see Heads
