"""`python -m tests.openapi` writes docs/openapi.json, from an application over the bundle of the tests."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from app.api.app import create_app
from app.api.stopping import Stopping
from app.metrics import Metrics
from app.runtime.session import Device
from app.serving.loading import loader
from app.serving.plan import Plan
from app.serving.repository import Repository
from app.settings import Settings
from tests import tiny

PAGE = Path(__file__).parents[1] / "docs" / "openapi.json"


def document(models_dir: Path) -> dict[str, Any]:
    repository = Repository(models_dir, loader(device=Device("cpu"), threads=1), plan=Plan())
    repository.start()
    with tempfile.NamedTemporaryFile() as keys:  # what keys add is described, too
        settings = Settings(models_dir=models_dir, api_keys_file=Path(keys.name))
        app = create_app(repository, settings, metrics=Metrics(), stopping=Stopping())
    return app.openapi()


def text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        tiny.write(Path(folder))
        PAGE.write_text(text(document(Path(folder))))
