"""Every command in the README is run, as a new user would: on a copy of the files that git knows."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.api.errors import CATALOGUE
from tests.server import free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)\n```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, *, thorough: bool) -> Path:
    """What a clone would hold. Every day it has this checkout's environment, which takes a minute to make."""
    folder = tmp_path_factory.mktemp("clone") / "trichord"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if not thorough and (ROOT / ".venv" / ".serve").exists():
        (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.fixture(scope="module")
def port(checkout: Path) -> Iterator[int]:
    """`make serve` in the fresh copy, on another port than the default, which may be taken here."""
    number = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    process = subprocess.Popen(
        ["make", "serve"],
        cwd=checkout,
        env=environment | {"TRICHORD_PORT": str(number)},
        start_new_session=True,
    )
    try:
        give_up_s = time.monotonic() + 180
        while True:
            assert process.poll() is None, "make serve ended"
            assert time.monotonic() < give_up_s, "make serve is not ready after three minutes"
            try:
                if httpx.get(f"http://127.0.0.1:{number}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield number
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_the_commands_are_those_that_are_run_below() -> None:
    assert [command.split()[:2] for command in COMMANDS] == [
        ["make", "serve"],
        ["curl", "-F"],
        [".venv/bin/trichord", "verify"],
        ["make", "image"],
        ["make", "test"],
    ]


def test_serve_then_curl(checkout: Path, port: int) -> None:
    curl = COMMANDS[1].replace(":8000/", f":{port}/").split()
    done = subprocess.run(curl, cwd=checkout, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["label"] == "7"
    assert answer["modalities"] == {"used": ["image", "text", "audio"], "missing": []}
    assert answer["model"]["name"] == "digits"


def test_verify(checkout: Path, port: int) -> None:
    assert port, "make serve has made the environment"
    done = subprocess.run(COMMANDS[2].split(), cwd=checkout, capture_output=True, text=True, check=True)
    assert "golden cases answered as at export" in done.stdout


@pytest.mark.thorough
def test_serving_needs_no_torch(checkout: Path, port: int) -> None:
    assert port, "make serve has made the environment"
    site = next((checkout / ".venv" / "lib").glob("python*/site-packages"))
    assert not (site / "torch").exists()
    assert (site / "onnxruntime").exists()


def test_make_test_is_what_ci_runs() -> None:
    """That command is running this very test; `make image` is run by test_image.py."""
    script = (ROOT / ".ci" / "run").read_text()
    assert "make check" in script
    assert COMMANDS[4] in script


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_catalogue_is_documented() -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    for code, entry in CATALOGUE.items():
        assert f"| {entry.status} | `{code}` | {entry.title}. |" in page
