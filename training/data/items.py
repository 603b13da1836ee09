"""The distinct images, texts and recordings of one split, as `app.bundle.prepare` leaves them.

Which of them belong together is said by training/data/dataset.py: one item may be in many rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, Modality


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """One channel where the three of every picture are equal, else three."""

    pixels: NDArray[np.uint8]  # [items, height, width, 1 or 3]; may be memory-mapped

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, items: NDArray[np.int64]) -> Self:
        return type(self)(self.pixels[items])


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    strings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.strings)

    def take(self, items: NDArray[np.int64]) -> Self:
        return type(self)(tuple(self.strings[item] for item in items))


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Recordings of any length, one after the other, mono and at the model's rate."""

    samples: NDArray[np.float32]  # [samples of all items]; may be memory-mapped
    bounds: NDArray[np.int64]  # [items + 1], where each begins and the last ends

    @classmethod
    def of(cls, clips: Iterable[NDArray[np.float32]]) -> Self:
        parts = list(clips)
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return cls(samples=samples, bounds=np.concatenate([np.zeros(1, np.int64), ends]))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, item: int) -> NDArray[np.float32]:
        return self.samples[self.bounds[item] : self.bounds[item + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples of each: [items]."""
        return np.diff(self.bounds)

    def take(self, items: NDArray[np.int64]) -> Self:
        return type(self).of(self[int(item)] for item in items)


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """None where no row of the split has the modality."""

    images: Images | None = None
    texts: Texts | None = None
    clips: Clips | None = None

    def count(self, modality: Modality) -> int:
        held = {"image": self.images, "text": self.texts, "audio": self.clips}[modality]
        return 0 if held is None else len(held)

    @property
    def counts(self) -> dict[Modality, int]:
        return {name: self.count(name) for name in MODALITIES}


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One modality's items by class, for sets whose rows are made by pairing items of one class.

    `groups` numbers what is independent: recordings of one clip, spellings of one word share a number.
    `columns` are the items' own facts, such as the speaker, to slice metrics by.
    """

    labels: NDArray[np.int64]  # [items]
    groups: NDArray[np.int64]  # [items]
    columns: dict[str, NDArray[np.str_]] = field(default_factory=dict)  # [items] each
