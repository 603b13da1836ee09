"""Log lines hold no user data, however they look."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAILS = """
import logging
from app import logs

logs.configure(style={style!r}, level="info")

def answer(body, api_key):
    raise ValueError("broken")

try:
    answer(body="my private " + "sentence", api_key="my " + "key")
except ValueError:
    logging.getLogger("app.here").exception("a row failed")
"""


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_does_not_show_what_a_caller_sent(style: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILS.format(style=style)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "a row failed" in done.stderr
    assert "broken" in done.stderr
    assert "my private sentence" not in done.stderr
    assert "my key" not in done.stderr
