"""What can go wrong with rows.

* NotAnInput              the input as a whole is none
* Unreadable              one row that cannot be read; it becomes a dead letter
"""

from __future__ import annotations


class NotAnInput(Exception):
    """A file that is not what its name says, or has none of the columns. The message says what to do."""


class Unreadable(Exception):
    """A row of which the inputs cannot be had."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)  # both, or it could not be sent to another process
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
