"""Whether this process was told to stop: the signal sets it, probes and connections read it."""

from __future__ import annotations


class Stopping:
    """Set once, never taken back."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        self.begun = True
