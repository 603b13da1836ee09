"""Probes and metrics: GET /healthz, /readyz, /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api import schemas
from app.api.documented import problems
from app.api.stopping import Stopping
from app.metrics import CONTENT_TYPE, Metrics
from app.serving.engine import Engine
from app.serving.errors import Draining, NotReady
from app.serving.schedule import Priority


def health_router(engine: Engine, metrics: Metrics, stopping: Stopping) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", operation_id="healthz", summary="Is the process alive?", responses=problems())
    async def healthz() -> schemas.Health:
        return schemas.Health(status="ok")

    @router.get(
        "/readyz",
        operation_id="readyz",
        summary="Does it answer predictions?",
        responses=problems("not_ready"),
    )
    async def readyz() -> schemas.Health:
        """Every model is verified and warmed up; the server is not stopping, and no run hangs."""
        if stopping.begun or engine.batcher.is_draining:
            raise Draining("The server is stopping.")
        if engine.batcher.is_stuck:
            raise NotReady("A run has been going for too long.")
        return schemas.Health(status="ready")

    @router.get(
        "/metrics",
        operation_id="metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
    )
    async def exposition() -> Response:
        for priority in Priority:
            metrics.waiting.labels(priority.value).set(engine.batcher.waiting(priority))
        metrics.open_rows.set(engine.batcher.open_rows)
        metrics.open_bytes.set(engine.batcher.open_bytes)
        metrics.running_seconds.set(engine.batcher.running_s)
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    return router
