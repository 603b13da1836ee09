"""A bound on the pixels that are being decoded at once, so that many large images do not add up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Hold = Callable[[int], AbstractContextManager[None]]  # of so many pixels, while the block lasts


def unbounded(_pixels: int) -> AbstractContextManager[None]:
    """For one image at a time, as in training."""
    return nullcontext()


class PixelBudget:
    """Shared by all threads that decode. An image larger than the whole budget is decoded alone."""

    def __init__(self, pixels: int) -> None:
        self._limit = pixels
        self._held = 0
        self._freed = threading.Condition()

    @property
    def held(self) -> int:
        return self._held

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for them."""
        with self._freed:
            self._freed.wait_for(lambda: not self._held or self._held + pixels <= self._limit)
            self._held += pixels
        try:
            yield
        finally:
            with self._freed:
                self._held -= pixels
                self._freed.notify_all()
