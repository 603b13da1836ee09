"""A request's body, as it comes from the stream: never more of it than is allowed, and never unpacked."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request

from app.api.errors import Refusal


def announced_bytes(request: Request, *, most: int) -> int:
    """How much the body will take: what its header says, or the most allowed. Raises body_too_large."""
    announced = int(request.headers.get("content-length", most))
    if announced > most:
        raise too_large(most)
    return announced


async def chunks(request: Request, *, most: int) -> AsyncIterator[bytes]:
    """The body's bytes. Raises body_too_large once there are more than `most`, or unsupported_media_type."""
    refuse_packed(request)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > most:
            raise too_large(most)
        yield chunk


async def read_body(request: Request, *, most: int) -> bytes:
    """The whole body. Raises as `chunks` does."""
    return b"".join([chunk async for chunk in chunks(request, most=most)])


def refuse_packed(request: Request) -> None:
    """Raises unsupported_media_type for a compressed body: a small one may unpack to any size."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal("unsupported_media_type", "Compressed bodies are not read. Send it as it is.")


def too_large(most: int) -> Refusal:
    return Refusal("body_too_large", f"The body has more than {most} bytes. Send less at once.")
