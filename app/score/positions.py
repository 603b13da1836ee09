"""Sets of row numbers that stay small for millions of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Positions:
    """Row numbers, one bit each."""

    def __init__(self, positions: Iterable[int] = ()) -> None:
        self._bits = bytearray()
        self._count = 0
        for position in positions:
            self.add(position)

    def __contains__(self, position: int) -> bool:
        byte = position >> 3
        return byte < len(self._bits) and bool(self._bits[byte] & (1 << (position & 7)))

    def __len__(self) -> int:
        return self._count

    def add(self, position: int) -> None:
        if position in self:
            return
        byte = position >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(max(1024, byte + 1 - len(self._bits))))
        self._bits[byte] |= 1 << (position & 7)
        self._count += 1


Run = tuple[int, int, int]  # first, last and step of equally spaced numbers


def to_runs(positions: Iterable[int]) -> list[Run]:
    """Sorted, as few runs: rows of one part are neighbours, or every n-th of a shard."""
    runs: list[list[int]] = []
    for position in sorted(positions):
        if runs:
            first, last, step = runs[-1]
            if first == last or position - last == step:
                runs[-1] = [first, position, position - last]
                continue
        runs.append([position, position, 1])
    return [(first, last, step) for first, last, step in runs]


def from_runs(runs: Iterable[Run]) -> Iterator[int]:
    for first, last, step in runs:
        yield from range(first, last + 1, step)
