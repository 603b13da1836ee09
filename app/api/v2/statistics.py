"""GET …/stats: rows, runs, and where time went, in the shape that perf_analyzer reads."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.api.v2.errors import refusals
from app.api.v2.paths import asked_model, on_model
from app.api.v2.service import Service
from app.serving.model import LiveModel
from app.serving.statistics import ModelStatistics, Runs, Total


class Duration(BaseModel):
    count: int = 0
    ns: int = 0


class InferenceStatistics(BaseModel):
    """Of requests. Only `fail` holds failed ones."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class ResponseStatistics(BaseModel):
    compute_infer: Duration
    compute_output: Duration
    success: Duration
    fail: Duration
    empty_response: Duration = Duration()
    cancel: Duration = Duration()


class BatchStatistics(BaseModel):
    """Of runs of one size."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class MemoryUsage(BaseModel):
    type: str
    id: int
    byte_size: int


class Statistics(BaseModel):
    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    response_stats: dict[str, ResponseStatistics]
    batch_stats: list[BatchStatistics]
    memory_usage: list[MemoryUsage] = []


class AllStatistics(BaseModel):
    model_stats: list[Statistics]


def statistics_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["v2"])

    def described(models: Iterable[LiveModel]) -> AllStatistics:
        return AllStatistics(
            model_stats=[_described(model, service.statistics.of(model)) for model in models]
        )

    @router.get(
        "/v2/models/stats",
        operation_id="v2_stats",
        summary="Statistics of every live model",
        responses=refusals(),
    )
    async def every() -> AllStatistics:
        return described(service.repository)

    @on_model(router, "GET", "/stats", operation_id="v2_model_stats", summary="Statistics of a model")
    async def one(request: Request) -> AllStatistics:
        """Of the version named, or of every live one."""
        model = asked_model(service.repository, request)
        if "version" in request.path_params:
            return described([model])
        name = model.manifest.name
        return described(live for live in service.repository if live.manifest.name == name)

    return router


def _described(model: LiveModel, counted: ModelStatistics) -> Statistics:
    run, encode = _duration(counted.run), _duration(counted.encode)
    success, fail = _duration(counted.success), _duration(counted.fail)
    return Statistics(
        name=model.manifest.name,
        version=str(model.manifest.version),
        last_inference=counted.last_run_ms,
        inference_count=counted.rows,
        execution_count=counted.runs,
        inference_stats=InferenceStatistics(
            success=success,
            fail=fail,
            queue=_duration(counted.queue),
            compute_input=_duration(counted.prepare),
            compute_infer=run,
            compute_output=encode,
        ),
        response_stats={
            "0": ResponseStatistics(compute_infer=run, compute_output=encode, success=success, fail=fail)
        },
        batch_stats=[_batch(size, runs) for size, runs in sorted(counted.batches.items())],
    )


def _batch(size: int, runs: Runs) -> BatchStatistics:
    return BatchStatistics(
        batch_size=size,
        compute_input=_duration(runs.collate),
        compute_infer=_duration(runs.compute),
        compute_output=Duration(count=runs.compute.count),  # rows are views of what the graph put out
    )


def _duration(total: Total) -> Duration:
    return Duration(count=total.count, ns=total.ns)
