"""A path with a control character is nobody's, though the router would take some for a route of ours.

The regular expressions of routes end in `$`, which also matches before a line feed at the end.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import problem

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class PlainPaths:
    """Middleware, outside of whatever reads a path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _CONTROL.search(scope["path"]):
            refusal = problem(Request(scope), "not_found", "A path holds no control characters.")
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)
