"""Probes and metrics: GET /healthz, /readyz, /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api import schemas
from app.metrics import CONTENT_TYPE, Metrics
from app.serving.repository import Repository


def health_router(repository: Repository, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", operation_id="healthz", summary="Is the process alive?")
    async def healthz() -> schemas.Health:
        return schemas.Health(status="ok")

    @router.get("/readyz", operation_id="readyz", summary="Does it answer predictions?")
    async def readyz() -> schemas.Health:
        """The port opens after every model was verified and warmed up, so whoever can ask is served."""
        return schemas.Health(status="ready")

    @router.get(
        "/metrics",
        operation_id="metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def exposition() -> Response:
        for model in repository:
            metrics.waiting.labels(model.manifest.name, str(model.manifest.version)).set(model.waiting)
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    return router
