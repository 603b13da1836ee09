"""Lines out of chunks that come as they like. Never holds more of a line than is allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator


async def lines(chunks: AsyncIterator[bytes], *, most: int) -> AsyncIterator[bytes | None]:
    """Each line without its end, blank ones left out; None for one of more than `most` bytes."""
    present = _Line(most)
    async for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            present.add(piece)
            line = present.take()
            if line is None or line.strip():
                yield line
        present.add(rest)
    line = present.take()
    if line is None or line.strip():
        yield line


class _Line:
    """One that is still coming in."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()
        self._is_too_long = False

    def add(self, piece: bytes) -> None:
        if len(self._held) + len(piece) > self._most:
            self._is_too_long = True
            self._held.clear()
        if not self._is_too_long:
            self._held += piece

    def take(self) -> bytes | None:
        line = None if self._is_too_long else bytes(self._held)
        self._held.clear()
        self._is_too_long = False
        return line
