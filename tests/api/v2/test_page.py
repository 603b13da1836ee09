"""docs/protocol.md is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx

from app.api.v2.metadata import EXTENSIONS
from tests.server import Server

PAGE = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()


def test_the_example_runs(server: Server) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    program = example.replace(":8000", f":{server.port}").replace('"digits"', '"tiny"')
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "(2, 3)\n"


def test_every_route_is_on_the_page(server: Server) -> None:
    served = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path in served:
        if path.startswith("/v2") and "{version}" not in path:
            ending = path.replace("{name}", "<name>").removeprefix("/v2/repository/models/<name>")
            assert f"{ending}`" in PAGE, path


def test_every_extension_is_on_the_page() -> None:
    for extension in EXTENSIONS:
        assert f"`{extension}`" in PAGE
