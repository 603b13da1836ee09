"""One row of the input: who it is, and where its bytes are. The bytes are read when an engine wants them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.bundle.manifest import Modality
from app.bundle.sample import RawInputs
from app.rows.errors import Unreadable


@dataclass(frozen=True, slots=True)
class InFile:
    """A file, or a part of one: a tar shard's members are read without unpacking it."""

    path: Path
    offset: int = 0
    size: int | None = None  # None: to the end

    def check(self) -> None:
        """Whether there is such a file. Raises Unreadable."""
        self.read(most=0)

    def read(self, *, most: int) -> bytes:
        """At most one byte more than `most`, which is enough to be refused. Raises Unreadable."""
        wanted = most + 1 if self.size is None else min(self.size, most + 1)
        try:  # a pipe that nobody writes to would else be waited for
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise Unreadable("not_a_file", f"'{self.path.name}' is not a plain file.")
            with os.fdopen(descriptor, "rb") as file:
                file.seek(self.offset)
                body = file.read(wanted)
        except FileNotFoundError as error:
            raise Unreadable("file_not_found", f"There is no file '{self.path.name}'.") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise Unreadable("file_unreadable", f"The file '{self.path.name}' cannot be read.") from error
        if self.size is not None and len(body) < wanted:
            raise Unreadable("file_truncated", f"'{self.path.name}' ends before what it should hold here.")
        return body


@dataclass(frozen=True, slots=True)
class Row:
    """`position` counts the rows of the input from 0 and says, together with the input's files, which it is.

    `original` is what stood in the input, as JSON or bytes, for a dead letter to repeat; relative names in it
    are looked up in `base`.
    """

    position: int
    id: str
    original: object
    base: Path
    media: Mapping[Modality, bytes | InFile]
    share: float = 0.0  # of the input that has been read with it, 0 to 1
    problem: Unreadable | None = None

    def load(self, most_bytes: Mapping[Modality, int]) -> RawInputs:
        """The row's bytes; of each modality at most one more than allowed. Raises Unreadable."""
        if self.problem is not None:
            raise self.problem
        read = {
            name: where if isinstance(where, bytes) else where.read(most=most_bytes.get(name, 0))
            for name, where in self.media.items()
        }
        return RawInputs(image=read.get("image"), text=read.get("text"), audio=read.get("audio"))
