"""Feature vectors of inputs that were encoded before, so that an image asked about twice is encoded once.

A key holds everything that determines the vector: a digest of the input's bytes, of the numbers and files
that prepare it, and of its encoder (see LiveModel.encoding_keys). Vectors live in memory, the least recently
used leave first, and nothing that failed is kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, Modality
from app.bundle.sample import InputWarning, RawInputs, Sample

ENTRY_BYTES: Final = 1024  # what an entry takes beside its vector: key, warnings, Python's objects


@dataclass(frozen=True, slots=True)
class Encoded:
    """What one input became, and what its sender should know of it."""

    features: NDArray[np.float32]
    warnings: tuple[InputWarning, ...] = ()

    @property
    def size_bytes(self) -> int:
        return ENTRY_BYTES + self.features.nbytes


class FeatureCache:
    """At most `max_bytes` of vectors. `evicted` is told of each that leaves for want of room."""

    def __init__(self, *, max_bytes: int, evicted: Callable[[], object] = lambda: None) -> None:
        self._max_bytes = max_bytes
        self._evicted = evicted
        self._entries: OrderedDict[bytes, Encoded] = OrderedDict()  # the least recently used first
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Encoded | None:
        encoded = self._entries.get(key)
        if encoded is not None:
            self._entries.move_to_end(key)
        return encoded

    def put(self, key: bytes, encoded: Encoded) -> None:
        """Keep it, unless it alone is larger than the cache."""
        if encoded.size_bytes > self._max_bytes:
            return
        known = self._entries.pop(key, None)
        self._bytes += encoded.size_bytes - (known.size_bytes if known else 0)
        self._entries[key] = encoded
        while self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.size_bytes
            self._evicted()


class Lookup(StrEnum):
    """Where an input's features came from."""

    HIT = "hit"
    JOINED = "joined"  # another row was having the same input encoded
    MISS = "miss"


_Flight = asyncio.Future[Encoded | None]  # None: whoever encoded it failed or left


@dataclass(slots=True)
class Claim:
    """One row's share in the cache: what is known, what others are encoding, what it must encode itself."""

    keys: Mapping[Modality, bytes]
    ready: dict[Modality, Encoded] = field(default_factory=dict)
    awaited: dict[Modality, _Flight] = field(default_factory=dict)
    led: dict[Modality, _Flight] = field(default_factory=dict)  # what others may be waiting for
    lookups: dict[Modality, Lookup] = field(default_factory=dict)

    async def join(self, *, timeout_s: float) -> None:
        """Wait for what others are encoding. Where they fail, or take longer, it is this row's to encode."""
        if self.awaited:
            await asyncio.wait(self.awaited.values(), timeout=timeout_s)
        for modality, flight in self.awaited.items():
            encoded = flight.result() if flight.done() else None
            self.lookups[modality] = Lookup.MISS if encoded is None else Lookup.JOINED
            if encoded is not None:
                self.ready[modality] = encoded

    def rest(self, raw: RawInputs) -> RawInputs:
        """What is left to decode and encode."""
        return replace(raw, **dict.fromkeys(self.ready)) if self.ready else raw

    def complete(self, rest: Sample) -> Sample:
        """The whole row, given what its rest was prepared to."""
        if not self.ready:
            return rest
        warnings = [*rest.warnings, *(one for known in self.ready.values() for one in known.warnings)]
        return replace(
            rest,
            features={modality: encoded.features for modality, encoded in self.ready.items()},
            warnings=tuple(sorted(warnings, key=lambda one: MODALITIES.index(one.part))),
        )


class Encodings:
    """The cache and, beside it, what is being encoded now: the same new input is encoded once."""

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self._flights: dict[tuple[str, bytes], _Flight] = {}

    @property
    def being_encoded(self) -> int:
        """Inputs that a row is having encoded now."""
        return len(self._flights)

    @contextmanager
    def claim(self, keys: Mapping[Modality, bytes], *, lane: str) -> Iterator[Claim]:
        """A row's share, until the block ends. Rows wait only for rows of their own lane.

        All keys are claimed at once and never again, so of two rows the later waits for the earlier and
        not the other way round: there is no circle to wait in.
        """
        assert len(set(keys.values())) == len(keys), "a row would wait for itself"
        claim = Claim(keys)
        for modality, key in keys.items():
            encoded = self.cache.get(key)
            if encoded is not None:
                claim.ready[modality], claim.lookups[modality] = encoded, Lookup.HIT
            elif (lane, key) in self._flights:
                claim.awaited[modality] = self._flights[lane, key]
            else:
                claim.lookups[modality] = Lookup.MISS
                claim.led[modality] = asyncio.get_running_loop().create_future()
                self._flights[lane, key] = claim.led[modality]
        try:
            yield claim
        finally:
            for modality, flight in claim.led.items():
                del self._flights[lane, keys[modality]]
                if not flight.done():
                    flight.set_result(None)

    def keep(self, claim: Claim, sample: Sample, features: Mapping[Modality, NDArray[np.float32]]) -> None:
        """What the row's run gave: for later rows, and for those that wait for it."""
        for modality in claim.keys.keys() - claim.ready.keys():
            if not np.isfinite(features[modality]).all():
                continue
            warnings = tuple(one for one in sample.warnings if one.part == modality)
            encoded = Encoded(features[modality].copy(), warnings)  # a view would hold its whole batch
            self.cache.put(claim.keys[modality], encoded)
            if modality in claim.led:
                claim.led[modality].set_result(encoded)
