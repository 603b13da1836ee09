"""A set of ids that stays small for millions of rows."""

from __future__ import annotations

import hashlib
from array import array
from typing import Final

_EMPTY: Final = 0
_FIRST_SLOTS: Final = 2**12


class SeenIds:
    """Which ids have come before, by 64 bits of their hash: 12 to 24 bytes an id.

    Of ten million different ids, two share their bits with a probability of 3 in a million.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def is_new(self, row_id: str) -> bool:
        """Whether it has not been asked about before."""
        digest = hashlib.blake2b(row_id.encode(errors="surrogatepass"), digest_size=8).digest()
        if not self._insert(int.from_bytes(digest, "little") or 1):
            return False
        self._count += 1
        if self._count * 3 > len(self._slots) * 2:
            self._grow()
        return True

    def _insert(self, digest: int) -> bool:
        slots = self._slots
        mask = len(slots) - 1
        place = digest & mask
        while slots[place] != _EMPTY:
            if slots[place] == digest:
                return False
            place = (place + 1) & mask
        slots[place] = digest
        return True

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(16 * len(old)))
        for digest in old:
            if digest != _EMPTY:
                self._insert(digest)
