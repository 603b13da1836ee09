"""What can be wrong with training data.

* DataError: who starts the training must act
  + DataMissing           a file that the recipe reads is not in the folder that was named
  + DataCorrupt           a file is there, but its content is not the published one
  + DownloadFailed        no mirror gave a complete and correct file
  + ManifestUnreadable    a table of rows is not what manifest.py reads
  + ManifestUnfit         it can be read, but training on it would mislead
"""

from __future__ import annotations


class DataError(Exception):
    """Training data that must not be used."""


class DataMissing(DataError):
    """A file is not where it was said to be."""


class DataCorrupt(DataError):
    """A file's content differs from the published one, so results would mean something else."""


class DownloadFailed(DataError):
    """Every mirror and every attempt failed."""


class ManifestUnreadable(DataError):
    """A table of rows is not JSONL, CSV or Parquet with the columns that are read."""


class ManifestUnfit(DataError):
    """Rows cannot be trained on as they are: an input that cannot be decoded, a leak between splits."""
