"""Bodies: read with a cap, decompressed with the same cap; JSON in and out without NaN."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from app.api import bodies
from app.api.errors import Refusal
from app.api.strict_json import parse_json

_JSON_BYTES: Final = 16 * 2**20
_WINDOWS: Final = {"gzip": 31, "deflate": 15}  # zlib's wbits; deflate is the zlib format (RFC 9110, 8.4.1.2)
_WORTH_COMPRESSING: Final = 1024
_PIECE_BYTES: Final = 2**18  # a millisecond to inflate


async def read_body(request: Request, *, most: int, hold: Callable[[int], None] | None = None) -> bytes:
    """The body, decompressed; `hold`, if given, is told how large it has become.

    Raises Refusal body_too_large, or bad_request for a broken compression, or what `hold` raises.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return await bodies.read_body(request, most=most)
    if encoding not in _WINDOWS:
        raise Refusal("bad_request", "A body is compressed with gzip or deflate, or not at all.")
    pieces, size = [], 0
    async for piece in _inflated(request, encoding, most=most):
        size += len(piece)
        if size > most:
            raise bodies.too_large(most)
        if hold is not None:
            hold(size)
        pieces.append(piece)
    return b"".join(pieces)


async def _inflated(request: Request, encoding: str, *, most: int) -> AsyncIterator[bytes]:
    """In small pieces and off the event loop: a few bytes may unpack to a thousand times as many."""
    decoder = zlib.decompressobj(_WINDOWS[encoding])
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > most:
            raise bodies.too_large(most)
        packed, is_more = chunk, bool(chunk)
        while is_more:
            try:
                piece = await asyncio.to_thread(decoder.decompress, packed, _PIECE_BYTES)
            except zlib.error as error:
                raise _broken(encoding) from error
            yield piece
            packed, is_more = decoder.unconsumed_tail, len(piece) == _PIECE_BYTES
        if decoder.unused_data:
            raise _broken(encoding)
    if not decoder.eof:
        raise _broken(encoding)


def load_json(text: bytes) -> Any:
    """Strict JSON of bounded size and depth. Raises Refusal bad_request or body_too_large."""
    if len(text) > _JSON_BYTES:
        raise Refusal(
            "body_too_large", f"The JSON has more than {_JSON_BYTES} bytes. Send tensors as binary."
        )
    return parse_json(text)


def dump_json(content: object) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def respond(request: Request, body: bytes, headers: dict[str, str]) -> Response:
    """An answer, compressed if its reader can read that and it is large enough to be worth it."""
    encoding = _accepted(request.headers.get("accept-encoding", ""))
    if encoding is not None and len(body) >= _WORTH_COMPRESSING:
        compressor = zlib.compressobj(level=1, wbits=_WINDOWS[encoding])
        body = compressor.compress(body) + compressor.flush()
        headers = headers | {"Content-Encoding": encoding}
    return Response(body, headers=headers | {"Vary": "Accept-Encoding"})


def _accepted(header: str) -> str | None:
    """The first encoding of ours that the header names and does not rule out with q=0."""
    for choice in header.lower().split(","):
        name, _, weight = (piece.strip() for piece in choice.partition(";"))
        if name in _WINDOWS and weight.replace(" ", "").rstrip("0") not in ("q=", "q=0."):
            return name
    return None


def _broken(encoding: str) -> Refusal:
    return Refusal("bad_request", f"The body is not complete {encoding}.")
