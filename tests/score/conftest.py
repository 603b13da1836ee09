from __future__ import annotations

from pathlib import Path

import pytest

from tests.score.running import write_manifest


@pytest.fixture(scope="module")
def folder(models_dir: Path) -> Path:
    return models_dir / "tiny" / "1"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("rows"))
