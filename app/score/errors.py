"""What can go wrong when many rows are scored.

* ScoreError: the whole run cannot go on
  + NotAsked              options, or an input or output that they name, that make no sense (exit code 2)
  + Changed               the folder holds another run than the one that is asked for (2)
  + EngineLost            the engine answers no more; what is finished is kept (1)
  + TooManyErrors         more dead letters than allowed; what is finished is kept (4)

A row that cannot be read is app.rows.errors.Unreadable; it becomes a dead letter.
"""

from __future__ import annotations


class ScoreError(Exception):
    """The run ends. The message says why and what to do."""


class NotAsked(ScoreError):
    """The options ask for something that cannot be."""


class Changed(ScoreError):
    """Input, model or options are not those that the output folder was begun with."""


class EngineLost(ScoreError):
    """Nothing answers, or another model than the one that the run began with."""


class TooManyErrors(ScoreError):
    """More rows failed than `--max-errors` allows."""
