"""The OpenAPI document says what the server does: every check of schemathesis, on a running server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.api.keys import Scope, new_key
from tests import tiny
from tests.server import serving

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(1800)
def test_the_server_keeps_every_promise_of_its_document(tmp_path: Path, *, thorough: bool) -> None:
    tiny.write(tmp_path / "models")
    key, line = new_key("schemathesis", frozenset(Scope))
    keys = tmp_path / "keys"
    keys.write_text(line)
    with serving(tmp_path / "models", api_keys_file=keys, log_level="warning") as server:
        examples = 500 if thorough else 5
        said = checked(f"{server.url}/openapi.json", key=key, examples=examples, folder=tmp_path)
        assert "request failed" not in server.log.read_text()
    print("\n" + said)  # noqa: T201


def checked(document: str, *, key: str, examples: int, folder: Path) -> str:
    """What schemathesis says of a server that it finds no fault with."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--no-color", "--config-file", str(CONFIG),
        "run", document, "--header", f"Authorization: Bearer {key}", "--header", f"X-API-Key: {key}",
        "--checks", "all", "--continue-on-failure",
        "--seed", "1", "--max-examples", str(examples), "--generation-database", "none",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
