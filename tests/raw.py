"""Bytes on a socket, for requests that no HTTP library would send."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The catalogue code, if this is a problem."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        code: str = json.loads(self.body)["code"]
        return code


@contextmanager
def connection(port: int, *, seconds: float = 20) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as raw:
        yield raw


def exchange(port: int, sent: bytes, *, seconds: float = 20) -> list[Reply]:
    """Every reply to these bytes until the server closes. Raises TimeoutError if it does not."""
    with connection(port, seconds=seconds) as raw:
        raw.sendall(sent)
        return replies(received(raw))


def received(raw: socket.socket) -> bytes:
    """All bytes until the server closes; a reset counts as closing."""
    chunks = bytearray()
    try:
        while chunk := raw.recv(65536):
            chunks += chunk
    except ConnectionError:
        pass
    return bytes(chunks)


def replies(wire: bytes) -> list[Reply]:
    """Split what a server sent into its answers. Fails if there is anything between or after them."""
    stream = _Wire(wire)
    found = []
    while stream.tell() < len(wire):
        response = HTTPResponse(stream)  # type: ignore[arg-type]
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        found.append(Reply(response.status, headers, response.read()))
    return found


class _Wire(io.BytesIO):
    """Enough of a socket for HTTPResponse, which closes the file that it read one answer from."""

    def makefile(self, *_: Any) -> _Wire:
        return self

    def close(self) -> None:
        """There may be another answer."""
