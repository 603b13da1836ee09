"""The folder that training data are read from: one that was named, or a cache that fills itself.

Both have the same layout (`mnist/…`, `fsdd/…`), so one loader serves both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.data.download import Advance, Source, fetch, verify
from training.data.errors import DataMissing


@dataclass(frozen=True, slots=True)
class Home:
    """`downloads` is None for a folder that someone else keeps: nothing is ever written there."""

    folder: Path
    downloads: Advance | None = None

    def file(self, source: Source, *, or_else: str | None = None) -> Path:
        """A verified file. `or_else` is another form of the same data, preferred where it is there.

        Raises DataMissing, DataCorrupt or DownloadFailed.
        """
        if or_else is not None and (self.folder / or_else).exists():
            return self.folder / or_else
        path = self.folder / source.path
        if not path.exists():
            if not source.mirrors:
                raise DataMissing(
                    f"{source.path} is not in {self.folder}, and no host offers it in this form. Make it "
                    f"from {source.origin}, and name its folder with --data."
                )
            if self.downloads is None:
                raise DataMissing(
                    f"{source.path} is not in {self.folder}. Put it there, or leave --data out to download "
                    "it."
                )
            return fetch(source, self.folder, advance=self.downloads)
        verify(path, source)
        return path
