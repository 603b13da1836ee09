"""The OpenAPI document: what FastAPI finds in the routes, and what it cannot find there.

That is the limits of the models that are live, what every request may get from in front of its route, and
one schema of a problem instead of a copy at every answer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from app.api.authorize import needed
from app.api.documented import inlined
from app.api.errors import CATALOGUE, WAITS
from app.api.schemas import Problem
from app.api.v2.errors import refusals, speaks_protocol
from app.bundle.manifest import MODALITIES, Manifest
from app.serving.repository import Repository

Document = dict[str, Any]

# what any request may get, from its connection or in front of its route
_ANYWHERE = ("bad_request", "request_timeout", "headers_too_large", "internal", "overloaded")
_KEYED = ("unauthorized", "forbidden", "rate_limited")  # likewise, where a key is needed
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_PROBLEM = "#/components/schemas/Problem"
_STRING = {"schema": {"type": "string"}}
_KINDS = {
    "image": "image/png, image/jpeg, image/webp",
    "audio": "audio/wav, audio/flac, audio/ogg, audio/mpeg",
}
# No NUL, and something that is not blank in Python, which knows a few blanks more than \s does.
_WORDS = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085\ufeff][^\u0000]*$"


def install(app: FastAPI, repository: Repository, *, has_keys: bool) -> None:
    """Let the application describe itself by the models that are live when it is asked."""
    plain = app.openapi
    known: dict[tuple[str, ...], Document] = {}

    def openapi() -> Document:
        manifests = [model.manifest for model in repository]
        digests = tuple(manifest.digest for manifest in manifests)
        if digests not in known:
            known.clear()
            known[digests] = described(plain(), manifests, has_keys=has_keys)
        return known[digests]

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation does


def described(plain: Document, manifests: Sequence[Manifest], *, has_keys: bool) -> Document:
    """A copy of the document, completed."""
    document = copy.deepcopy(plain)
    document["components"]["schemas"]["Problem"] = inlined(Problem)
    if has_keys:
        document["components"]["securitySchemes"] = _SCHEMES
    for path, operation in operations(document):
        _bound_form(operation, manifests)
        is_keyed = has_keys and needed(path) is not None
        if is_keyed:
            operation["security"] = [{scheme: []} for scheme in _SCHEMES]
        responses = operation["responses"]
        if not speaks_protocol(path):
            _add_answers(responses, (*_ANYWHERE, *_KEYED) if is_keyed else _ANYWHERE)
        elif is_keyed:
            for status, answer in refusals(*(CATALOGUE[code].status for code in _KEYED)).items():
                responses.setdefault(str(status), answer)
    return document


def operations(document: Document) -> Iterator[tuple[str, Document]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _add_answers(responses: Document, anywhere: Sequence[str]) -> None:
    for code in anywhere:
        responses.setdefault(str(CATALOGUE[code].status), {})
    for status, answer in responses.items():
        if int(status) < HTTPStatus.BAD_REQUEST:
            continue
        codes = [code for code, entry in CATALOGUE.items() if entry.status == int(status)]
        answer["description"] = " · ".join(f"`{code}`: {CATALOGUE[code].title.lower()}" for code in codes)
        answer["headers"] = {"X-Request-Id": _STRING}
        if int(status) in WAITS:
            answer["headers"]["Retry-After"] = _STRING
        answer["content"] = {"application/problem+json": {"schema": {"$ref": _PROBLEM}}}


def _bound_form(operation: Document, manifests: Sequence[Manifest]) -> None:
    """What the form's schema says is accepted, some live model accepts."""
    form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
    # A form of many rows is not bounded: a pattern names its parts.
    if form is None or not manifests or not form["schema"]["properties"].keys() & set(MODALITIES):
        return
    properties = form["schema"]["properties"]
    most = _most_bytes(manifests)
    for name in MODALITIES:
        if name in most:
            properties[name]["x-max-bytes"] = most[name]
        else:
            properties.pop(name, None)
    for field, bounds in _bounds(manifests).items():
        if field in properties:
            properties[field] |= bounds
    form["schema"]["not"] = {"properties": dict.fromkeys(most, False)}
    form["encoding"] = {name: {"contentType": _KINDS[name]} for name in most if name in _KINDS}


def _most_bytes(manifests: Sequence[Manifest]) -> dict[str, int]:
    """Of each modality that a live model reads, in their order: what the most generous one reads."""
    each = [manifest.inputs for manifest in manifests]
    return {
        name: max(inputs.encoder(name).max_bytes for inputs in each if name in inputs.names)
        for name in MODALITIES
        if any(name in inputs.names for inputs in each)
    }


def _bounds(manifests: Sequence[Manifest]) -> Mapping[str, Document]:
    characters = [one.inputs.text.max_characters for one in manifests if one.inputs.text]
    return {
        "text": {"maxLength": max(characters, default=1), "pattern": _WORDS, "examples": ["sept"]},
        "model": {"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
        "top_k": {"maximum": max(len(manifest.labels) for manifest in manifests)},
    }
