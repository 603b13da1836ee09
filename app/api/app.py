"""Wires the floors into one application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app.api import errors
from app.api.health import health_router
from app.api.models import models_router
from app.api.observe import Observe
from app.api.predict import predict_router
from app.metrics import Metrics
from app.runtime.predictor import Predictor
from app.serving.model import LiveModel
from app.serving.repository import Opened, Repository
from app.settings import Settings

_ABOUT = """
One prediction from an image, a text and a recording that belong together, also when one is missing.

Errors are RFC 9457 problems with a stable `code`. Every answer carries `X-Request-Id`.
"""


def create_app(opened: Opened, settings: Settings) -> FastAPI:
    """An application over opened models. Raises NoLiveModel if the default model is not among them."""
    metrics = Metrics()
    pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
    models = [_live(predictor, pool, metrics, settings) for predictor in opened.predictors]
    repository = Repository(models, refused=opened.refused, default=settings.default_model)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(pool.shutdown)
            for model in models:
                await stack.enter_async_context(model)
            yield

    app = FastAPIOffline(
        title="Trichord",
        description=_ABOUT,
        version=version("trichord"),
        lifespan=lifespan,
        redoc_url=None,
        static_url="/docs-static",
    )
    app.include_router(predict_router(repository, metrics))
    app.include_router(models_router(repository))
    app.include_router(health_router(repository, metrics))
    app.add_middleware(Observe, metrics=metrics)
    errors.install(app)
    return app


def _live(predictor: Predictor, pool: Executor, metrics: Metrics, settings: Settings) -> LiveModel:
    manifest = predictor.manifest
    key = (manifest.name, str(manifest.version))
    metrics.model_info.labels(*key, manifest.digest, str(predictor.device)).set(1)
    return LiveModel(
        predictor,
        pool=pool,
        max_batch_size=settings.max_batch_size,
        max_queue=settings.max_queue,
        on_batch=_batch_observer(metrics, key),
    )


def _batch_observer(metrics: Metrics, key: tuple[str, str]) -> Callable[[int, float], None]:
    sizes, seconds = metrics.batch_size.labels(*key), metrics.run_seconds.labels(*key)

    def observe(size: int, run_s: float) -> None:
        sizes.observe(size)
        seconds.observe(run_s)

    return observe
