"""The OpenAPI document says what the server does: every check of schemathesis, on a running server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(900)
def test_the_server_keeps_every_promise_of_its_document(
    server: Server, tmp_path: Path, *, thorough: bool
) -> None:
    schemathesis = Path(sys.executable).with_name("schemathesis")
    arguments = [
        "run", f"{server.url}/openapi.json", "--checks", "all", "--continue-on-failure", "--seed", "1",
        "--max-examples", "500" if thorough else "25", "--generation-database", "none",
    ]  # fmt: skip
    done = subprocess.run(
        [schemathesis, "--no-color", "--config-file", CONFIG, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
    print("\n" + done.stdout)  # noqa: T201
