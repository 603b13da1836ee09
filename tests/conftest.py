"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from app.bundle.folder import Bundle, read_bundle
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from tests import tiny
from tests.server import Server, serving


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="Full counts, and what is slow to start; takes minutes."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Every client reads all authorities of the world, 40 ms each time. Nothing here speaks TLS: one will do.

    --thorough installs packages from elsewhere, and leaves them.
    """
    if config.getoption("--thorough"):
        return
    authorities, end = Path(certifi.where()).read_text(encoding="utf-8"), "-----END CERTIFICATE-----\n"
    file = tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="utf-8")  # noqa: SIM115  # until the end
    file.write(authorities.partition(end)[0] + end)
    file.flush()
    config.add_cleanup(file.close)
    os.environ["SSL_CERT_FILE"] = file.name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for --thorough alone; the number of those is told as deselected."""
    if config.getoption("--thorough"):
        return
    left_out = [item for item in items if item.get_closest_marker("thorough")]
    items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Whether the counts are those that we publish, or a few for every day."""
    return bool(pytestconfig.getoption("--thorough"))


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that holds tiny/1. Shared: copy it before changing anything."""
    folder = tmp_path_factory.mktemp("models")
    tiny.write(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(models_dir: Path) -> Bundle:
    return read_bundle(models_dir / "tiny" / "1")


@pytest.fixture(scope="session")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor.open(bundle, device=Device("cpu"), threads=1)


@pytest.fixture(scope="session")
def server(models_dir: Path) -> Iterator[Server]:
    """A server over tiny/1 that all read-only tests share."""
    with serving(models_dir) as running:
        yield running
