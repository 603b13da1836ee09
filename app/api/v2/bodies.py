"""Bodies: read with a cap, decompressed with the same cap; JSON in and out without NaN."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from app.api import bodies
from app.api.errors import Refusal
from app.api.strict_json import parse_json

_JSON_BYTES: Final = 16 * 2**20
_WINDOWS: Final = {"gzip": 31, "deflate": 15}  # zlib's wbits; deflate is the zlib format (RFC 9110, 8.4.1.2)
_WORTH_COMPRESSING: Final = 1024


async def read_body(request: Request, *, most: int) -> bytes:
    """The body, decompressed. Raises Refusal: body_too_large, or bad_request for a broken compression."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return await bodies.read_body(request, most=most)
    if encoding not in _WINDOWS:
        raise Refusal("bad_request", "A body is compressed with gzip or deflate, or not at all.")
    decoder = zlib.decompressobj(_WINDOWS[encoding])
    body = bytearray()
    async for chunk in request.stream():
        try:
            body += decoder.decompress(chunk, most + 1 - len(body))
        except zlib.error as error:
            raise _broken(encoding) from error
        if len(body) > most:
            raise bodies.too_large(most)
    if not decoder.eof or decoder.unused_data:
        raise _broken(encoding)
    return bytes(body)


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
