"""Loaded by schemathesis: what is sent where the OpenAPI document says image or audio."""

from __future__ import annotations

import json

import schemathesis
from hypothesis import strategies

from tests import tiny

_colours = strategies.tuples(*[strategies.integers(0, 255)] * 3)
_sizes = strategies.tuples(*[strategies.integers(1, 300)] * 2)


def _pictures(kind: str) -> strategies.SearchStrategy[bytes]:
    return strategies.builds(tiny.png, _colours, size=_sizes, format=strategies.just(kind))


def _tones() -> strategies.SearchStrategy[bytes]:
    return strategies.builds(tiny.tone, strategies.floats(20, 3000), seconds=strategies.floats(0.01, 1))


for _kind in ("png", "jpeg", "webp"):
    schemathesis.openapi.media_type(f"image/{_kind}", _pictures(_kind.upper()))
for _kind in ("wav", "flac", "ogg", "mpeg"):  # a decoder looks at bytes, so one format stands for all
    schemathesis.openapi.media_type(f"audio/{_kind}", _tones())


@schemathesis.serializer("application/x-ndjson")
def lines(_context: object, row: object) -> bytes:
    """One row is a stream, too."""
    return row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n"


@schemathesis.hook
def filter_case(_context: object, case: schemathesis.Case) -> bool:
    """HTTP has it that unknown headers are passed over, so one more is no fault to be found."""
    return not any("unknown-property" in name for name in case.headers or {})
