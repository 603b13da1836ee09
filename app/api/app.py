"""Wires the floors into one application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.api import openapi
from app.api.admin_port import admin_app, operators_router
from app.api.answers import job_result
from app.api.batch import batch_router
from app.api.deadline import Patience
from app.api.embed import embed_router
from app.api.engine_metrics import EngineMetrics, show_engine, show_live
from app.api.health import Vitals, health_router
from app.api.heartbeat import Heartbeat
from app.api.jobs import JobMetrics, jobs_router
from app.api.keys import KeyFile
from app.api.models import models_router
from app.api.predict import predict_router
from app.api.protection import Protection
from app.api.service import Service
from app.api.stopping import Stopping
from app.api.stream import stream_router
from app.api.tracing import TELEMETRY
from app.api.v2.routes import protocol_router
from app.api.v2.service import Limits as RequestLimits
from app.api.v2.service import Service as ProtocolService
from app.jobs.folder import Folder
from app.jobs.jobs import Jobs
from app.jobs.jobs import Limits as JobLimits
from app.jobs.manifests import Manifests
from app.jobs.spool import Caps
from app.jobs.worker import Worker
from app.metrics import Metrics
from app.serving.cache import FeatureCache
from app.serving.engine import Engine, Limits
from app.serving.following import following
from app.serving.observers import Observers
from app.serving.rate import Rate
from app.serving.repository import Repository
from app.serving.statistics import Statistics
from app.settings import Settings

_HANGS = 3  # times as long as makes the server unready, and a run is given up
_BODY_SHARE = 4  # of the memory for bodies, what one request of many rows may take
_ABOUT = """
One prediction from an image, a text and a recording that belong together, also when one is missing.

Errors are RFC 9457 problems with a stable `code`. Every answer carries `X-Request-Id`.
"""


def create_app(
    repository: Repository,
    settings: Settings,
    *,
    metrics: Metrics,
    stopping: Stopping,
    beat: Callable[[], None] = lambda: None,
) -> FastAPI:
    """An application over a repository that has started; `state.admin` is that of its admin port, if any.

    `beat` tells others that the event loop turns.
    """
    repository.on_change = lambda changed: show_live(metrics, changed)
    show_live(metrics, repository)
    statistics = Statistics()
    engine = Engine(
        Limits(
            max_batch_size=settings.max_batch_size,
            max_rows=settings.max_rows,
            max_bytes=settings.max_megabytes * 2**20,
            hang_s=settings.hang_seconds,
        ),
        decode_threads=settings.decode_threads,
        observer=Observers(EngineMetrics(metrics), statistics),
        cache=_cache(settings, metrics),
    )

    def on_beat() -> None:
        beat()
        show_engine(metrics, engine)  # another worker may be the one that is scraped

    heartbeat = Heartbeat(on_beat=on_beat)
    vitals = Vitals(engine, repository, stopping, heartbeat, dead_s=_HANGS * settings.hang_seconds)

    jobs = _jobs(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(heartbeat.beating())
            await stack.enter_async_context(engine)
            await stack.enter_async_context(following(repository, every_s=settings.poll_seconds))
            if jobs is not None:
                await stack.enter_async_context(jobs)
                worker = Worker(
                    jobs,
                    engine,
                    repository,
                    describe=job_result,
                    observer=JobMetrics(metrics),
                    is_stopping=lambda: stopping.begun,
                )
                await stack.enter_async_context(worker.working())
            yield

    app = FastAPIOffline(
        title="Trichord",
        description=_ABOUT,
        version=version("trichord"),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # to an address that the Host header would make up
        static_url="/docs-static",
        telemetry=TELEMETRY,
    )
    patience = Patience(default_s=settings.deadline_seconds, most_s=settings.max_deadline_seconds)
    service = Service(engine, repository, metrics, patience)
    app.include_router(predict_router(service))
    app.include_router(embed_router(service))
    app.include_router(batch_router(service, max_rows=settings.max_rows))
    app.include_router(stream_router(service, most_rows=2 * settings.max_batch_size))
    app.include_router(jobs_router(service, jobs))
    app.include_router(models_router(repository))
    app.include_router(health_router(vitals, is_outside=False))
    app.include_router(
        protocol_router(
            ProtocolService(
                engine=engine,
                repository=repository,
                metrics=metrics,
                statistics=statistics,
                patience=patience,
                limits=RequestLimits(
                    rows=settings.max_rows, body_bytes=settings.max_megabytes * 2**20 // _BODY_SHARE
                ),
            ),
            vitals,
        )
    )
    protection = _protection(settings, metrics, stopping)
    if settings.admin_port is None:
        app.include_router(operators_router(vitals, metrics))
    else:
        app.state.admin = admin_app(vitals, metrics, protection)
    protection.install(app)
    openapi.install(app, repository, has_keys=settings.api_keys_file is not None)
    return app


def _jobs(settings: Settings) -> Jobs | None:
    if settings.jobs_dir is None:
        return None
    limits = JobLimits(
        Caps(rows=settings.jobs_max_rows, bytes=settings.jobs_max_megabytes * 2**20),
        unfinished=settings.jobs_max_unfinished,
        keep_s=settings.jobs_keep_hours * 3600,
    )
    manifests = settings.manifests_dir
    return Jobs(Folder(settings.jobs_dir), limits, manifests=Manifests(manifests) if manifests else None)


def _protection(settings: Settings, metrics: Metrics, stopping: Stopping) -> Protection:
    per_s, path = settings.requests_per_second, settings.api_keys_file
    return Protection(
        metrics,
        stopping,
        key_file=KeyFile(path) if path else None,
        rate=Rate(per_s / settings.workers) if per_s else None,
        cors_origins=settings.cors_origins,
    )


def _cache(settings: Settings, metrics: Metrics) -> FeatureCache | None:
    if not settings.cache_megabytes:
        return None
    return FeatureCache(max_bytes=settings.cache_megabytes * 2**20, evicted=metrics.cache_evictions.inc)
