"""The server as replicas under Ray Serve: the same application behind Ray's HTTP proxy. See docs/cluster.md.

    serve run deploy.ray_serve:app replicas=4 cpus=2
    serve deploy deploy/ray_serve.yaml

Settings are the usual TRICHORD_ variables of whoever deploys; what they name must be there on every machine.
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp, Message

from app import logs
from app.api.app import create_app
from app.api.repository import started_repository
from app.api.stopping import Stopping
from app.metrics import Metrics
from app.settings import Settings


class Replicas(BaseModel):
    """How many, and what Ray sets aside for each."""

    model_config = ConfigDict(extra="forbid")

    replicas: int = Field(1, ge=1)
    cpus: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0, le=1)


def build() -> ASGIApp:
    """In a replica: the application over its models. What is wrong with them ends the replica."""
    settings = Settings(workers=1)
    logs.configure(style=settings.log_format, level=settings.log_level)
    return create_app(started_repository(settings), settings, metrics=Metrics(), stopping=Stopping())


@serve.deployment(name="trichord")
@serve.ingress(build)
class Replica:
    """One serving process. Ray replaces it when it says that it is not well."""

    app: ASGIApp  # of serve.ingress

    async def check_health(self) -> None:
        """What /healthz says: a run that never ends asks for a restart."""
        status = await _status(self.app, "/healthz")
        if status != 200:
            raise RuntimeError(f"/healthz answers {status}")


def app(given: dict[str, Any]) -> Application:
    """For `serve run` and `serve deploy`: Replicas by their names. Raises ValueError for what cannot be."""
    asked = Replicas.model_validate(given)
    settings = Settings(workers=1)
    if settings.jobs_dir is not None:
        raise ValueError("TRICHORD_JOBS_DIR: jobs belong to one server. `trichord serve` has them.")
    return Replica.options(
        num_replicas=asked.replicas,
        max_ongoing_requests=settings.max_connections,
        graceful_shutdown_timeout_s=settings.shutdown_seconds,
        ray_actor_options={
            "num_cpus": asked.cpus,
            "num_gpus": asked.gpus,
            "runtime_env": {"env_vars": _environment(asked)},
        },
    ).bind()


def _environment(asked: Replicas) -> dict[str, str]:
    """Ours, and threads for the processors that a replica has."""
    threads = {"TRICHORD_THREADS": str(asked.cpus), "TRICHORD_DECODE_THREADS": str(asked.cpus + 1)}
    everything = os.environ.items()  # noqa: TID251 - handed on unread, for app/settings.py to read there
    return threads | {name: value for name, value in everything if name.startswith("TRICHORD_")}


async def _status(asgi: ASGIApp, path: str) -> int:
    """What a GET is answered with, without a network."""
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": [],
        "client": None, "server": None,
    }  # fmt: skip
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    await asgi(scope, receive, send)
    return status
