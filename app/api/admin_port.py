"""A port for operators, with a thread and an event loop of its own: it answers when the main one cannot."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import APIRouter, FastAPI

from app.api.admin import admin_router
from app.api.health import Vitals, health_router, metrics_router
from app.api.protection import Protection
from app.api.v2.repository import repository_router
from app.metrics import Metrics


def operators_router(vitals: Vitals, metrics: Metrics) -> APIRouter:
    """What moves from the main port to this one, if there is one."""
    router = APIRouter()
    router.include_router(metrics_router(vitals.engine, metrics))
    router.include_router(admin_router(vitals.repository))
    router.include_router(repository_router(vitals.repository))
    return router


def admin_app(vitals: Vitals, metrics: Metrics, protection: Protection) -> FastAPI:
    """Probes that see the main event loop from outside, metrics, and the change of versions."""
    app = FastAPI(title="Trichord, for operators", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(health_router(vitals, is_outside=True))
    app.include_router(operators_router(vitals, metrics))
    protection.install(app)
    return app


@contextmanager
def running(config: uvicorn.Config, listener: socket.socket) -> Iterator[None]:
    """Serve beside whatever the block does."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="admin", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=2)
