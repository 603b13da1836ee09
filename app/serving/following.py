"""Look at the models folder now and then, and follow what changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.serving.errors import FolderUnreadable
from app.serving.repository import Repository

log = logging.getLogger(__name__)


@asynccontextmanager
async def following(repository: Repository, *, every_s: float) -> AsyncIterator[None]:
    """Reconcile every so often while the block lasts; never if `every_s` is 0."""
    task = asyncio.create_task(_follow(repository, every_s), name="following") if every_s else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _follow(repository: Repository, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await asyncio.to_thread(repository.reconcile)
        except FolderUnreadable as error:
            log.error("%s What is live serves on.", error)  # noqa: TRY400
        except Exception:  # the next look may find the folder well again; what is live serves on
            log.exception("the models folder could not be followed")
