"""What one HTTP/1.1 request may look like, and the answer to one that never reaches the application."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from app.api.errors import CATALOGUE, WAITS, Fault, document
from app.api.observe import new_request_id

log = logging.getLogger(__name__)

MAX_HEADERS = 100  # browsers send about 20, proxies add about 10
MAX_HEADER_BYTES = 32 * 1024  # names, values and path; four times what common proxies pass on

_DETAILS: Final = {
    "bad_request": "This is not one well-formed HTTP/1.1 request. Send it with an HTTP library.",
    "headers_too_large": f"Send at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES} bytes of them.",
    "request_timeout": "The request arrived too slowly. Send it again on a better connection.",
    "overloaded": "Too many connections are open. Try again later.",
}


def is_sound(headers: Sequence[tuple[bytes, bytes]], *, version: str, is_upgrade: bool) -> bool:
    """Whether every server on the way must have read the same request from these bytes (RFC 9112, 3.2, 6).

    The parser refuses most of what is ambiguous, but its strictness depends on its build; this does not.
    """
    values: dict[bytes, list[bytes]] = {b"host": [], b"content-length": [], b"transfer-encoding": []}
    for name, value in headers:
        if name in values:
            values[name].append(value)
    hosts, lengths, encodings = values.values()
    has_host = len(hosts) == 1 or (not hosts and version == "1.0")
    has_one_length = len(lengths) + len(encodings) <= 1
    is_chunked = not encodings or (encodings[0].strip().lower() == b"chunked" and version == "1.1")
    # the parser takes what follows an upgrade for another protocol, so such a body would be lost
    is_readable = not (is_upgrade and (encodings or any(length.strip() != b"0" for length in lengths)))
    return version in ("1.0", "1.1") and has_host and has_one_length and is_chunked and is_readable


def answer(code: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A whole answer that closes its connection. `headers` are those of every answer."""
    status, request_id = CATALOGUE[code].status, new_request_id()
    log.info("connection refused", extra={"code": code, "status": status, "request_id": request_id})
    body = document(Fault(code, _DETAILS[code]), request_id=request_id).encode()
    wait = [(b"retry-after", b"1")] if status in WAITS else []
    lines = [
        b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode()),
        b"content-type: application/problem+json",
        b"content-length: %d" % len(body),
        b"x-request-id: %s" % request_id.encode(),
        b"connection: close",
        *(b"%s: %s" % header for header in [*headers, *wait]),
    ]
    return b"\r\n".join([*lines, b"", body])
