"""What can keep a job from being taken or shown.

* JobsError           carries a message for the caller
  + JobNotFound       there is none of that id, or it is another key's
  + TooLarge          more bytes or rows than one job may have
  + TooMany           as many jobs wait as may
  + ManifestRefused   the caller named a manifest that is none, or none of theirs to name
  + StoreFailed       the disk is full, or the database broken
* FolderTaken         the operator must act: another server owns the folder
"""

from __future__ import annotations


class JobsError(Exception):
    """Carries a message for the caller."""

    def __init__(self, message: str, *, part: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.part = part


class JobNotFound(JobsError):
    """The caller named a job that is not theirs, or not there."""


class TooLarge(JobsError):
    """The rows are more than one job may have."""


class TooMany(JobsError):
    """Unfinished jobs must end first. `retry_after_s` is a guess when that will be."""

    retry_after_s = 60.0


class ManifestRefused(JobsError):
    """What the caller named cannot be read as a manifest."""


class StoreFailed(JobsError):
    """Jobs can neither be kept nor shown at present."""

    retry_after_s = 10.0


class FolderTaken(Exception):
    """Two servers in one folder would delete each other's files."""
