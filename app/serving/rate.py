"""How often each caller may ask: a bucket of tokens for each, filled at a constant rate."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_S = 2.0  # a caller who was quiet may ask at once what it may ask in this time


class Rate:
    """Buckets by caller's name; names come from a closed set."""

    def __init__(self, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S)
        self._clock = clock
        self._full_at_s: dict[str, float] = {}

    def take(self, name: str) -> float:
        """Take a token: 0, or the seconds until there will be one."""
        now_s = self._clock()
        full_at_s = max(now_s, self._full_at_s.get(name, now_s))
        missing = (full_at_s - now_s) * self._per_s
        if missing > self._burst - 1 + 1e-9:  # sums of floats are not exact
            return (missing - self._burst + 1) / self._per_s
        self._full_at_s[name] = full_at_s + 1 / self._per_s
        return 0.0
