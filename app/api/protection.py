"""What stands between the network and every route, on every port."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.api import errors
from app.api.authorize import Authorize
from app.api.heads import Heads
from app.api.keys import KeyFile
from app.api.observe import Observe
from app.api.plain_paths import PlainPaths
from app.api.stopping import Stopping
from app.metrics import Metrics
from app.serving.rate import Rate

# what pages of other hosts may send, and read of an answer
_SENT = (
    "Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "Inference-Header-Content-Length",
    "traceparent", "tracestate", "X-API-Key", "X-Request-Deadline-Ms", "X-Request-Id", "X-Request-Priority",
)  # fmt: skip
_READ = ("Inference-Header-Content-Length", "Location", "Retry-After", "Server-Timing", "X-Request-Id")


@dataclass(frozen=True, slots=True)
class Protection:
    """Keys; outside of them the answers to browsers that ask before they send one; and a log of all."""

    metrics: Metrics
    stopping: Stopping
    key_file: KeyFile | None
    rate: Rate | None
    cors_origins: tuple[str, ...]

    def install(self, app: FastAPI) -> None:
        app.add_middleware(Heads)
        if self.key_file is not None:
            app.add_middleware(Authorize, key_file=self.key_file, rate=self.rate)
        if self.cors_origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=self.cors_origins,
                allow_methods=errors.METHODS,
                allow_headers=_SENT,
                expose_headers=_READ,
            )
        app.add_middleware(PlainPaths)
        app.add_middleware(Observe, metrics=self.metrics, stopping=self.stopping)
        errors.install(app)
