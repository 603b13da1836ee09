"""Who may ask: the key in a request's headers against the scope of its path, before its body is read.

Plain ASGI, and by the path as it was sent: `request.url` would believe the Host header.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import keys
from app.api.errors import problem
from app.serving.rate import Rate

# What needs no key: probes, because whoever runs the server must reach them without one, and its
# description, because it holds nothing of its users.
_OPEN: Final = re.compile(
    r"/(healthz|readyz|docs(/.*)?|docs-static/.*|openapi\.json)"
    r"|/v2/(health/(live|ready)|models/[^/]+(/versions/[^/]+)?/ready)"
)
# By how a path begins, the first that fits: a route's template begins with one of these, so whatever the
# router takes for that route does, too.
_SCOPES: Final = (
    ("/v1/admin", keys.Scope.ADMIN),
    ("/v2/repository", keys.Scope.ADMIN),
    ("/metrics", keys.Scope.METRICS),
    ("/v1/", keys.Scope.PREDICT),
    ("/v2", keys.Scope.PREDICT),
)


def needed(path: str) -> keys.Scope | None:
    """The scope that a path asks for; what is not listed is for those who may do most."""
    if _OPEN.fullmatch(path):
        return None
    return next((scope for begin, scope in _SCOPES if path.startswith(begin)), keys.Scope.ADMIN)


class Authorize:
    """Middleware, inside of Observe."""

    def __init__(self, app: ASGIApp, *, key_file: keys.KeyFile, rate: Rate | None) -> None:
        self._app = app
        self._key_file = key_file
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        scope_needed = needed(scope["path"])
        if scope_needed is None:
            return None
        request = Request(scope)
        key = keys.find(self._key_file.keys, _presented(request.headers))
        if key is None:
            message = "Send a valid key, as Authorization: Bearer KEY or as X-API-Key: KEY."
            response = problem(request, "unauthorized", message)
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        request.state.key = key.name
        if scope_needed not in key.scopes:
            return problem(request, "forbidden", f"This key has not the scope {scope_needed}. Use another.")
        wait_s = self._rate.take(key.name) if self._rate else 0.0
        if wait_s > 0:
            message = "This key asks more often than it may. Wait as long as Retry-After says."
            return problem(request, "rate_limited", message, retry_after_s=wait_s)
        return None


def _presented(headers: Headers) -> bytes:
    """The key; of two that are given, the one in Authorization, whatever is wrong with it."""
    said = headers.get("authorization")
    if said is None:
        return headers.get("x-api-key", "").encode("latin-1")
    kind, _, token = said.partition(" ")
    return token.strip().encode("latin-1") if kind.lower() == "bearer" else b""
