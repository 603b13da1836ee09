"""Routes about one model, each with and without a version, and which model a request means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request

from app.api.v2.errors import refusals
from app.serving.errors import ModelNotFound
from app.serving.model import LiveModel
from app.serving.repository import Repository

_NAME: Final = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION: Final = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9]+$"},
}


def on_model(
    router: APIRouter,
    method: str,
    action: str,
    *,
    operation_id: str,
    statuses: tuple[int, ...] = (404,),
    described: dict[str, Any] | None = None,
    **options: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a handler for an action on a model, and on one version of it."""

    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        for part, parameters in (("", [_NAME]), ("/versions/{version}", [_NAME, _VERSION])):
            router.add_api_route(
                f"/v2/models/{{name}}{part}{action}",
                handler,
                methods=[method],
                operation_id=f"{operation_id}{'_version' if part else ''}",
                responses=refusals(*statuses),
                openapi_extra={"parameters": parameters, **(described or {})},
                **options,
            )
        return handler

    return register


def asked_model(repository: Repository, request: Request) -> LiveModel:
    """The model that the path names. Raises ModelNotFound."""
    version = request.path_params.get("version")
    if version is not None and not (version.isascii() and version.isdigit() and len(version) < 16):
        raise ModelNotFound("A version is a number. GET /v1/models lists them.", part="version")
    return repository.find(request.path_params["name"], None if version is None else int(version))
