"""What can keep an accepted form from being answered.

* ServingError        carries a message for the caller
  + Overloaded        too much waits to answer in time: try again later
  + Draining          the server is about to stop: try elsewhere
  + NotReady          a run hangs: try elsewhere
  + DeadlineExceeded  the time that the caller gave is over
  + ModelNotFound     no live bundle has that name or version
  + ModelAmbiguous    several models are live and none was named
  + LoadFailed        an operator's change could not be made
* NoLiveModel         the operator must act: there is nothing to serve
* FolderUnreadable    likewise: the models folder cannot be listed, or is empty all of a sudden
"""

from __future__ import annotations


class ServingError(Exception):
    """Carries a message for the caller."""

    def __init__(self, message: str, *, part: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.part = part


class Overloaded(ServingError):
    """More is waiting than can be answered in time. `retry_after_s` is when that should be over."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Draining(ServingError):
    """No new work is taken."""


class NotReady(ServingError):
    """The model does not answer at present."""


class DeadlineExceeded(ServingError):
    """The answer would come after the time that the caller, or the server's limit, allows."""


class ModelNotFound(ServingError):
    """The caller named a model or a version that is not live."""


class ModelAmbiguous(ServingError):
    """The caller named no model and there is no single one to assume."""


class LoadFailed(ServingError):
    """A change of what is served could not be made; what served before still does."""


class NoLiveModel(Exception):
    """No bundle could be brought to life at start."""


class FolderUnreadable(Exception):
    """What the models folder holds cannot be told; what is live serves on."""
