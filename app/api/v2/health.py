"""Probes: is the server alive, does it answer, does one model?"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.api.health import Vitals
from app.api.v2.errors import refusals
from app.api.v2.paths import asked_model, on_model
from app.api.v2.service import Service


class Live(BaseModel):
    live: bool = True


class Ready(BaseModel):
    ready: bool = True


class ModelReady(Ready):
    name: str


def health_router(service: Service, vitals: Vitals) -> APIRouter:
    router = APIRouter(tags=["v2"])

    @router.get(
        "/v2/health/live", operation_id="v2_live", summary="Is the process alive?", responses=refusals(503)
    )
    async def live() -> Live:
        vitals.check_alive()
        return Live()

    @router.get(
        "/v2/health/ready", operation_id="v2_ready", summary="Does it answer?", responses=refusals(503)
    )
    async def ready() -> Ready:
        vitals.check_ready()
        return Ready()

    @on_model(
        router,
        "GET",
        "/ready",
        operation_id="v2_model_ready",
        summary="Does this model answer?",
        statuses=(404, 503),
    )
    async def model_ready(request: Request) -> ModelReady:
        model = asked_model(service.repository, request)
        vitals.check_ready()
        return ModelReady(name=model.manifest.name)

    return router
