"""Notice a client that leaves, and stop working for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`; if the client leaves before, `work` is cancelled.

    To be called when the body has been read. Raises ClientDisconnect. Works because every middleware here
    is plain ASGI: one that wraps the receive channel would hide the client's leaving.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.create_task(left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def left(request: Request) -> None:
    """Return when the client has left. Throws away what is still to be read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
