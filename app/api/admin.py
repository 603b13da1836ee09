"""What operators change while requests flow: versions, traffic, rollback. Routes below /v1/admin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict

from app.api import schemas
from app.api.bodies import read_body
from app.api.documented import inlined, problems
from app.api.errors import Refusal
from app.api.strict_json import parse_json, validate
from app.serving.plan import Plan, Version
from app.serving.repository import Repository

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Body = TypeVar("Body", bound=BaseModel)

_BODY_BYTES: Final = 64 * 1024
_UNREADABLE: Final = problems("bad_request", "body_too_large", "unsupported_media_type")


class Promotion(BaseModel):
    """Which version is to become stable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Version


def admin_router(repository: Repository) -> APIRouter:
    """Every change is written to the model's serving.json, so that all workers and restarts follow it."""
    router = APIRouter(
        prefix="/v1/admin",
        tags=["admin"],
        responses=problems("model_not_found", "load_failed", "invalid_parameter"),
    )
    _add_showing(router, repository)
    _add_changing(router, repository)
    return router


def _add_showing(router: APIRouter, repository: Repository) -> None:
    @router.get("/models", operation_id="admin_models", summary="Every version in the models folder")
    async def index() -> list[schemas.Version]:
        return _versions(repository)

    @router.get("/models/{name}", operation_id="admin_model", summary="A model's plan and versions")
    async def show(name: Name) -> schemas.Serving:
        return _serving(repository, name)


def _add_changing(router: APIRouter, repository: Repository) -> None:
    async def changed(name: str, change: Callable[[], None]) -> schemas.Serving:
        await asyncio.to_thread(change)
        return _serving(repository, name)

    @router.put(
        "/models/{name}",
        operation_id="admin_plan",
        summary="Replace a model's plan",
        responses=_UNREADABLE,
        openapi_extra=_body(Plan),
    )
    async def replace(name: Name, request: Request) -> schemas.Serving:
        """Nothing changes if a version that the plan labels cannot be served."""
        plan = await _read(request, Plan)
        return await changed(name, lambda: repository.change(name, plan))

    @router.post(
        "/models/{name}/load", operation_id="admin_load", summary="Serve a model and its new versions"
    )
    async def load(name: Name) -> schemas.Serving:
        return await changed(name, lambda: repository.load(name))

    @router.post("/models/{name}/unload", operation_id="admin_unload", summary="Stop serving a model")
    async def unload(name: Name) -> schemas.Serving:
        """Requests that it has are answered."""
        return await changed(name, lambda: repository.unload(name))

    @router.post(
        "/models/{name}/promote",
        operation_id="admin_promote",
        summary="Make a version stable",
        responses=_UNREADABLE,
        openapi_extra=_body(Promotion),
    )
    async def promote(name: Name, request: Request) -> schemas.Serving:
        asked = await _read(request, Promotion)
        return await changed(name, lambda: repository.promote(name, asked.version))

    @router.post(
        "/models/{name}/rollback", operation_id="admin_rollback", summary="Back to the version before"
    )
    async def roll_back(name: Name) -> schemas.Serving:
        return await changed(name, lambda: repository.roll_back(name))


async def _read(request: Request, schema: type[Body]) -> Body:
    """Raises Refusal. Asking for JSON keeps web pages out: other types they may send without being asked."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal("unsupported_media_type", "Send the change as application/json.")
    return validate(schema, parse_json(await read_body(request, most=_BODY_BYTES)))


def _body(schema: type[BaseModel]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined(schema)}}}}


def _versions(repository: Repository, name: str | None = None) -> list[schemas.Version]:
    return [
        schemas.Version(name=one.name, version=one.version, state=one.state.value, reason=one.reason)
        for one in repository.index()
        if name in (None, one.name)
    ]


def _serving(repository: Repository, name: str) -> schemas.Serving:
    return schemas.Serving(plan=repository.plan(name), versions=_versions(repository, name))
