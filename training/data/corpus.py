"""What a recipe learns from: three modalities in three splits, as arrays in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Images:
    """Grey pictures, as `app.bundle.prepare` leaves them; the three channels are equal, so one is kept."""

    pixels: NDArray[np.uint8]  # [rows, height, width]
    labels: NDArray[np.int64]  # [rows]


@dataclass(frozen=True, slots=True)
class Clips:
    """Recordings, as `app.bundle.prepare` leaves them."""

    samples: tuple[NDArray[np.float32], ...]  # each [samples], mono, at the model's rate
    labels: NDArray[np.int64]  # [rows]
    speakers: NDArray[np.str_]  # [rows]

    def where(self, chosen: NDArray[np.bool_]) -> Clips:
        samples = tuple(self.samples[row] for row in np.flatnonzero(chosen))
        return Clips(samples=samples, labels=self.labels[chosen], speakers=self.speakers[chosen])


@dataclass(frozen=True, slots=True)
class Texts:
    """Written forms of a class."""

    strings: tuple[str, ...]
    labels: NDArray[np.int64]  # [rows]
    is_misspelt: NDArray[np.bool_]  # [rows]


@dataclass(frozen=True, slots=True)
class Split:
    images: Images
    texts: Texts
    clips: Clips


@dataclass(frozen=True, slots=True)
class Corpus:
    """Splits share no image, no recording and no misspelt string. `provenance` goes into the manifest."""

    train: Split
    validation: Split
    test: Split
    provenance: dict[str, Any]
