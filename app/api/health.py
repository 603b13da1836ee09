"""Probes and metrics: GET /healthz, /readyz, /metrics."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response

from app.api import schemas
from app.api.documented import problems
from app.api.engine_metrics import show_engine
from app.api.heartbeat import Heartbeat
from app.api.stopping import Stopping
from app.metrics import CONTENT_TYPE, Metrics
from app.serving.engine import Engine
from app.serving.errors import Draining, NotReady
from app.serving.repository import Repository

_BLOCKED_S = 5.0  # decoding and running have threads of their own: nothing of ours blocks for a tenth of it


@dataclass(frozen=True, slots=True)
class Vitals:
    """What tells whether a serving process is well."""

    engine: Engine
    repository: Repository
    stopping: Stopping
    heartbeat: Heartbeat
    dead_s: float  # a run of more never ends, and only a restart helps

    def check_alive(self, *, is_outside: bool = False) -> None:
        """Raises NotReady where a restart is asked for. `is_outside`: as in health_router."""
        if is_outside and self.heartbeat.age_s > _BLOCKED_S:
            raise NotReady("The event loop is blocked.")
        if self.engine.batcher.running_s > self.dead_s:
            raise NotReady("A run does not end.")

    def check_ready(self) -> None:
        """Raises Draining or NotReady where requests should go to another server."""
        if self.stopping.begun or self.engine.batcher.is_draining:
            raise Draining("The server is stopping.")
        if self.engine.batcher.is_stuck:
            raise NotReady("A run has been going for too long.")
        if self.repository.is_empty:
            raise NotReady("No model is served at present.")


def health_router(vitals: Vitals, *, is_outside: bool) -> APIRouter:
    """`is_outside`: asked from another thread than the one it asks about, so it can see that one blocked."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", operation_id="healthz", summary="Is the process alive?", responses=problems())
    async def healthz() -> schemas.Health:
        """Busy is alive. An event loop that does not turn or a run that does not end asks for a restart."""
        vitals.check_alive(is_outside=is_outside)
        return schemas.Health(status="ok")

    @router.get(
        "/readyz",
        operation_id="readyz",
        summary="Does it answer predictions?",
        responses=problems("not_ready"),
    )
    async def readyz() -> schemas.Health:
        """A model is live, verified and warmed up; the server is not stopping, and no run hangs."""
        vitals.check_ready()
        return schemas.Health(status="ready")

    return router


def metrics_router(engine: Engine, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        operation_id="metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
    )
    async def exposition() -> Response:
        show_engine(metrics, engine)
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    return router
