"""Every example of the pages is run, against the server and the model that they speak of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import ERRORS, AsyncClient, Client
from tests.server import Server, serving

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "docs/client.md")}
EXAMPLES = [
    pytest.param(code, id=f"{name} {number}")
    for name, page in PAGES.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
]


@pytest.fixture(scope="module")
def digits() -> Iterator[Server]:
    with serving(ROOT / "models") as running:
        yield running


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs(
    digits: Server, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    at_home = re.sub(r"http://(localhost|127\.0\.0\.1):8000", digits.url, code)
    assert at_home != code
    exec(compile(at_home, "example", "exec"), {})  # noqa: S102 - our own page
    if "digits/2/golden/7.png" in code:
        assert capsys.readouterr().out.startswith("7")


def test_every_method_is_on_the_page() -> None:
    methods = [name for name in vars(Client) if not name.startswith("_")]
    assert set(methods) == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in set(methods) - {"close"}:
        assert f"`{name}" in PAGES["docs/client.md"] or f"client.{name}" in PAGES["docs/client.md"], name


def test_every_public_method_has_an_example_or_needs_none() -> None:
    for kind in (Client, AsyncClient):
        for name in (
            "predict",
            "explain",
            "predict_batch",
            "stream",
            "embed",
            "models",
            "create_job",
            "job",
            "jobs",
            "wait_job",
            "job_results",
            "job_errors",
            "cancel_job",
            "delete_job",
            "health",
            "ready",
            "wait_ready",
        ):
            assert f"client.{name}(" in (getattr(kind, name).__doc__ or ""), name
    assert all(kind.__doc__ for kind in ERRORS.values())
