"""All routes of the protocol but those for operators, for an application to include."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.health import Vitals
from app.api.v2.configuration import configuration_router
from app.api.v2.health import health_router
from app.api.v2.infer import infer_router
from app.api.v2.instances import instances_router
from app.api.v2.metadata import metadata_router
from app.api.v2.service import Service
from app.api.v2.statistics import statistics_router

_PARTS = (
    statistics_router,  # before the routes of one model: "stats" is no model's name
    metadata_router,
    configuration_router,
    infer_router,
    instances_router,
)


def protocol_router(service: Service, vitals: Vitals) -> APIRouter:
    router = APIRouter()
    router.include_router(health_router(service, vitals))
    for part in _PARTS:
        router.include_router(part(service))
    return router
