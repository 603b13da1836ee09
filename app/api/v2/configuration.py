"""GET …/config: a model as Triton's tools want it described. `dims` leave the rows out."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.api.v2.metadata import PLATFORM
from app.api.v2.outputs import OutputSpec, output_specs
from app.api.v2.paths import asked_model, on_model
from app.api.v2.service import Service
from app.bundle.manifest import Manifest


class InputConfiguration(BaseModel):
    name: str
    data_type: Literal["TYPE_STRING"] = "TYPE_STRING"
    dims: list[int]
    optional: bool = True


class OutputConfiguration(BaseModel):
    name: str
    data_type: Literal["TYPE_FP32", "TYPE_BOOL"]
    dims: list[int]


class DynamicBatching(BaseModel):
    """Rows that wait when the executor is free run together; nothing is waited for."""

    max_queue_delay_microseconds: int = 0
    priority_levels: int = 2  # 1 is interactive, 2 is batch
    default_priority_level: int = 1


class TransactionPolicy(BaseModel):
    decoupled: bool = False


class ResponseCache(BaseModel):
    enable: bool = False


class Configuration(BaseModel):
    name: str
    platform: str = PLATFORM
    backend: str = "onnxruntime"
    max_batch_size: int
    input: list[InputConfiguration]
    output: list[OutputConfiguration]
    dynamic_batching: DynamicBatching = DynamicBatching()
    model_transaction_policy: TransactionPolicy = TransactionPolicy()
    response_cache: ResponseCache = ResponseCache()


def configuration_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["v2"])

    @on_model(router, "GET", "/config", operation_id="v2_config", summary="A model's configuration")
    async def config(request: Request) -> Configuration:
        """`max_batch_size` is the most rows of one request."""
        manifest = asked_model(service.repository, request).manifest
        return _configuration(manifest, max_rows=service.limits.rows)

    return router


def _configuration(manifest: Manifest, *, max_rows: int) -> Configuration:
    return Configuration(
        name=manifest.name,
        max_batch_size=max_rows,
        input=[InputConfiguration(name=name, dims=[1]) for name in manifest.inputs.names],
        output=[_output(name, spec) for name, spec in output_specs(manifest).items()],
    )


def _output(name: str, spec: OutputSpec) -> OutputConfiguration:
    data_type: Literal["TYPE_FP32", "TYPE_BOOL"] = "TYPE_BOOL" if spec.datatype == "BOOL" else "TYPE_FP32"
    return OutputConfiguration(name=name, data_type=data_type, dims=spec.dims)
