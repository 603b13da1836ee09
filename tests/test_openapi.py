"""docs/openapi.json is what the server says of itself."""

from __future__ import annotations

from pathlib import Path

from app.api.errors import CATALOGUE
from app.api.v2.errors import speaks_protocol
from tests import openapi


def test_the_document_in_the_repository_is_the_servers(models_dir: Path) -> None:
    """When this fails, look at the difference, and if you mean it: make openapi."""
    assert openapi.PAGE.read_text() == openapi.text(openapi.document(models_dir))


def test_every_operation_declares_what_any_request_may_get(models_dir: Path) -> None:
    for path, operations in openapi.document(models_dir)["paths"].items():
        if speaks_protocol(path):
            continue  # errors there are those of its own
        for operation in operations.values():
            assert set(operation["responses"]) >= {"400", "408", "431", "500", "503"}, path


def test_every_code_is_in_the_document(models_dir: Path) -> None:
    text = openapi.text(openapi.document(models_dir))
    of_no_operation = {"method_not_allowed"}
    assert {code for code in CATALOGUE if f"`{code}`" not in text} == of_no_operation
