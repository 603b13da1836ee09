"""One serving process: it listens, and when it is told to stop it answers who is in and ends with code 0."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn

from app.api.admin_port import running
from app.api.app import create_app
from app.api.guard import ConnectionLimits, Guarded
from app.api.stopping import Stopping
from app.metrics import Metrics
from app.serving.repository import Repository
from app.settings import Settings

_TURN_S: Final = 0.0005  # of a thread that others wait for; Python's own 5 ms are a request's whole life
_INTERRUPTED: Final = 128 + signal.SIGINT  # what shells call a process ended by its user
_OTHER_FILES: Final = 128  # open beside connections: models, logs, the event loop's own


def serve(
    repository: Repository,
    settings: Settings,
    listener: socket.socket,
    admin: socket.socket | None = None,
    *,
    metrics: Metrics,
    beat: Callable[[], None],
) -> None:
    """Answer requests until a signal, then those that are in.

    `admin` is the socket of the admin port. `beat` is called again and again while the event loop turns.
    """
    _share_the_interpreter()
    stopping = Stopping()
    _allow_files(settings.max_connections + _OTHER_FILES)
    connection: Any = partial(
        Guarded,
        limits=ConnectionLimits(
            header_s=settings.header_seconds,
            body_s=settings.body_seconds,
            max_connections=settings.max_connections,
        ),
        stopping=stopping,
        refused=lambda code: metrics.rejected.labels(code).inc(),
    )
    configured: Any = partial(
        uvicorn.Config,
        loop="uvloop",
        http=connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
    )
    app = create_app(repository, settings, metrics=metrics, stopping=stopping, beat=beat)
    config = configured(app, timeout_graceful_shutdown=settings.shutdown_seconds)
    server = DrainingServer(config, stopping=stopping, drain_s=settings.drain_seconds)
    _spare_the_collector()
    with running(configured(app.state.admin, timeout_graceful_shutdown=1), admin) if admin else nullcontext():
        server.run(sockets=[listener])


class DrainingServer(uvicorn.Server):
    """Stops in order: unready at once, closed to new connections after `drain_s`, then gone.

    uvicorn alone would close at once, while load balancers still send, and would end by its own signal.
    """

    def __init__(self, config: uvicorn.Config, *, stopping: Stopping, drain_s: float) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._drain_s = drain_s
        self._close_s = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        if self._stopping.begun:
            os._exit(_INTERRUPTED)  # asked twice: somebody will not wait for the requests
        self._stopping.begin()
        self._close_s = time.monotonic() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or time.monotonic() >= self._close_s


def _allow_files(count: int) -> None:
    """Raise this process's limit on open files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _spare_the_collector() -> None:
    """Libraries and the application live as long as the process: to look through them for garbage takes tens
    of milliseconds again and again, in which nobody is answered."""
    gc.collect()
    gc.freeze()


def _share_the_interpreter() -> None:
    """Decoders come back from native steps often, and must not wait for the event loop each time."""
    sys.setswitchinterval(_TURN_S)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # noqa: TID251 - our threads are enough
