"""What FastAPI cannot find out about a route, for OpenAPI: its errors, and bodies that it reads itself."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pydantic import BaseModel

from app.api.errors import CATALOGUE
from app.api.schemas import Problem


def problems(*named: str) -> dict[int | str, dict[str, Any]]:
    """For each status of the named codes: the problem schema, and every catalogue code of that status."""
    codes = defaultdict(list)
    for code, entry in CATALOGUE.items():
        codes[entry.status].append(code)
    statuses = sorted({CATALOGUE[code].status for code in named})
    return {
        status: {
            "description": " · ".join(f"`{code}`: {CATALOGUE[code].title.lower()}" for code in codes[status]),
            "content": {"application/problem+json": {"schema": inlined(Problem)}},
        }
        for status in statuses
    }


def inlined(model: type[BaseModel]) -> Any:
    """The model's JSON schema without references, which an OpenAPI document would look for elsewhere."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, list):
            return [resolve(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolve(definitions[part["$ref"].rpartition("/")[2]])
        return {name: resolve(one) for name, one in part.items()}

    return resolve(schema)
