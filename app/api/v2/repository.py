"""POST /v2/repository/…: list every version, load and unload models. For operators."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError

from app.api.documented import inlined
from app.api.errors import Refusal
from app.api.v2.bodies import load_json, read_body
from app.api.v2.errors import refusals
from app.serving.repository import Repository, State

_BODY_BYTES: Final = 64 * 1024
_NO_OVERRIDE: Final = (None, "", "{}")


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


T = TypeVar("T", bound=_Asked)


class IndexRequest(_Asked):
    ready: bool = False


class ChangeRequest(_Asked):
    """Parameters other than `file:…` and a `config` with content are ignored."""

    parameters: dict[str, str | int | float | bool | None] = {}


class IndexEntry(BaseModel):
    name: str
    version: str
    state: State
    reason: str


def repository_router(repository: Repository) -> APIRouter:
    router = APIRouter(prefix="/v2/repository", tags=["v2"])
    _add_index(router, repository)
    _add_changes(router, repository)
    return router


def _add_index(router: APIRouter, repository: Repository) -> None:
    @router.post(
        "/index",
        operation_id="v2_index",
        summary="Every version in the models folder",
        responses=refusals(400, 413),
        openapi_extra=_body(IndexRequest),
    )
    async def index(request: Request) -> list[IndexEntry]:
        asked = _checked(IndexRequest, await _content(request))
        return [
            IndexEntry(name=one.name, version=str(one.version), state=one.state, reason=one.reason)
            for one in repository.index()
            if not asked.ready or one.state is State.READY
        ]


def _add_changes(router: APIRouter, repository: Repository) -> None:
    documented: dict[str, Any] = {
        "status_code": 200,
        "response_class": Response,
        "responses": refusals(400, 404, 409, 413),
        "openapi_extra": _body(ChangeRequest),
    }

    @router.post("/models/{name}/load", operation_id="v2_load", summary="Serve a model", **documented)
    async def load(name: str, request: Request) -> Response:
        """By name, from the models folder. Files and configurations in the request are refused."""
        _refuse_overrides(_checked(ChangeRequest, await _content(request)))
        await asyncio.to_thread(repository.load, name)
        return Response()

    @router.post(
        "/models/{name}/unload", operation_id="v2_unload", summary="Stop serving a model", **documented
    )
    async def unload(name: str, request: Request) -> Response:
        """Requests that it has are answered. `unload_dependents` changes nothing: no model needs another."""
        _checked(ChangeRequest, await _content(request))
        await asyncio.to_thread(repository.unload, name)
        return Response()


async def _content(request: Request) -> Any:
    """The body's JSON; clients may leave it out."""
    body = await read_body(request, most=_BODY_BYTES)
    return load_json(body) if body else {}


def _checked(kind: type[T], content: Any) -> T:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise Refusal("bad_request", "The body is not the JSON that this route reads. See /docs.") from error


def _refuse_overrides(asked: ChangeRequest) -> None:
    """A request must not bring code or weights: only what an operator put into the folder is served."""
    if any(name.startswith("file:") for name in asked.parameters):
        raise Refusal("bad_request", "Files in a request are not supported. Put a bundle into the folder.")
    if asked.parameters.get("config") not in _NO_OVERRIDE:
        raise Refusal("bad_request", "A configuration in a request is not supported. Leave it out.")


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": inlined(kind)}}}}
