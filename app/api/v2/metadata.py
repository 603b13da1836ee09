"""What the server and its models are: GET /v2, /v2/models and /v2/models/{name}."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.api.v2.errors import refusals
from app.api.v2.outputs import output_specs
from app.api.v2.paths import asked_model, on_model
from app.api.v2.service import Service
from app.api.v2.tensors import Datatype

PLATFORM: Final = "onnx_onnxv1"
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
)
_ANY: Final = -1  # rows: as many as the request has


class ServerMetadata(BaseModel):
    name: str = "trichord"
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelNames(BaseModel):
    models: list[str]


def metadata_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["v2"])

    @router.get("/v2", operation_id="v2_server", summary="Name, version, extensions", responses=refusals())
    async def server() -> ServerMetadata:
        return ServerMetadata(version=version("trichord"), extensions=list(EXTENSIONS))

    @router.get("/v2/models", operation_id="v2_models", summary="Names of live models", responses=refusals())
    async def models() -> ModelNames:
        return ModelNames(models=sorted({model.manifest.name for model in service.repository}))

    @on_model(router, "GET", "", operation_id="v2_model", summary="Versions, inputs and outputs of a model")
    async def model(request: Request) -> ModelMetadata:
        """Inputs are all optional, and listed as encoded media; prepared tensors are accepted, too."""
        manifest = asked_model(service.repository, request).manifest
        return ModelMetadata(
            name=manifest.name,
            versions=_versions(service, manifest.name),
            platform=PLATFORM,
            inputs=[
                TensorMetadata(name=name, datatype="BYTES", shape=[_ANY, 1]) for name in manifest.inputs.names
            ],
            outputs=[
                TensorMetadata(name=name, datatype=spec.datatype, shape=[_ANY, *spec.dims])
                for name, spec in output_specs(manifest).items()
            ],
        )

    return router


def _versions(service: Service, name: str) -> list[str]:
    live = [model.manifest.version for model in service.repository if model.manifest.name == name]
    return [str(number) for number in sorted(live)]
