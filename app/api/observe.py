"""Around every request: an id in and out, one log line, one count, and an answer even to our own bugs.

Plain ASGI: a middleware that wraps the receive channel would hide from the route that its client left.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import METHODS, problem
from app.api.stopping import Stopping
from app.metrics import Metrics

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # what may be echoed into a header and a log
_ids = random.Random()  # noqa: S311 - ids are unique, not secret; the kernel's source costs 0.2 ms each


class Observe:
    """Outermost middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, stopping: Stopping) -> None:
        self._app = app
        self._metrics = metrics
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {}).update(request_id=request_id, started_s=started_s, problem=None)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except asyncio.CancelledError:  # the time to stop is over
            if status or not self._stopping.begun:
                raise
            response = problem(Request(scope), "draining", "The server stopped. Send it to another one.")
            await response(scope, receive, send_named)
        except Exception:  # a bug of ours: the client gets a catalogued answer, the log the whole story
            log.exception("request failed", extra={"request_id": request_id})
            if status:
                raise  # the answer has begun and cannot be taken back
            response = problem(Request(scope), "internal", "Try again; if it stays, report the request id.")
            await response(scope, receive, send_named)
        finally:
            self._record(scope, status, time.perf_counter() - started_s)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        code = scope["state"]["problem"]
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if code is not None:
            self._metrics.rejected.labels(code).inc()
        log.info(
            "request",
            extra={
                "request_id": scope["state"]["request_id"],
                "method": method,
                "route": route,
                "status": status,
                "code": code,
                "key": scope["state"].get("key"),
                "total_ms": round(seconds * 1000, 3),
            },
        )


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _ID.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    """32 hexadecimal digits."""
    return f"{_ids.getrandbits(128):032x}"
