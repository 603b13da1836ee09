"""What users may ask for stands on a page: routes, series, options, and the files that recipes read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from app.cli import app as trichord
from app.metrics import Metrics
from training.__main__ import app as training
from training.data.article import CIFAR10, REUTERS
from training.data.avt_digits import WORDS
from training.data.fsdd import archive_source
from training.data.mnist import sources as mnist_sources
from training.data.noise import SOURCE as NOISE
from training.data.picturewords import sources as picturewords_sources

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
EVERY_PAGE: Final = "\n".join((*PAGES.values(), (ROOT / "README.md").read_text(encoding="utf-8")))


def bare(path: str) -> str:
    """Whatever a parameter is called."""
    return re.sub(r"\{[^}]+\}|<[^>]+>|(?<=/)ID\b", "{}", path)


@pytest.mark.parametrize(
    "path",
    # Those of /v2 are the protocol's, and protocol.md names them as it does.
    [
        path
        for path in json.loads((ROOT / "docs" / "openapi.json").read_bytes())["paths"]
        if path[:4] != "/v2/"
    ],
)
def test_every_route_is_on_a_page(path: str) -> None:
    assert bare(path) in bare(EVERY_PAGE)


def test_every_series_is_on_its_page_as_the_server_tells_it() -> None:
    told = Metrics().exposition().decode()
    kinds = dict(re.findall(r"^# TYPE (trichord_\w+) (\w+)$", told, flags=re.MULTILINE))
    meanings = re.findall(r"^# HELP (trichord_\w+) (.*)$", told, flags=re.MULTILINE)
    rows = re.findall(
        r"^\| `(trichord_\w+)` \| (\w+) \| .*? \| (.*) \|$", PAGES["metrics.md"], flags=re.MULTILINE
    )
    assert rows == [(name, kinds[name], meaning) for name, meaning in meanings]


def options(command: Any, called: str) -> Iterator[tuple[str, str]]:
    """Of all commands below it."""
    for name, below in getattr(command, "commands", {}).items():
        yield from options(below, f"{called} {name}")
        for parameter in below.params:
            yield from ((f"{called} {name}", option) for option in parameter.opts if option[:2] == "--")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *options(typer.main.get_command(trichord), "trichord"),
        *options(typer.main.get_command(training), "training"),
    ],
)
def test_every_option_is_on_a_page(command: str, option: str) -> None:
    assert re.search(rf"{option}\b", EVERY_PAGE), f"{option} of {command}"


@pytest.mark.parametrize(
    "path",
    [
        *(source.path for source in (WORDS, NOISE, CIFAR10, REUTERS)),
        *(source.path for source in picturewords_sources().values()),
        *(f"{Path(source.path).parent}/" for source in (*mnist_sources().values(), archive_source())),
    ],
)
def test_every_file_that_a_recipe_reads_is_named(path: str) -> None:
    *folders, name = path.split("/")
    assert all(f"{folder}/" in PAGES["training.md"] for folder in folders)
    assert name in PAGES["training.md"]
