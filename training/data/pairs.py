"""Rows of three modalities that belong together: same class, same split.

MNIST and FSDD know nothing of each other, so a row is a made one: an image, a text and a recording of the
same digit. Given the digit they are independent, which real triples are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.corpus import Split


@dataclass(frozen=True, slots=True)
class Pairs:
    """Row numbers into the images, texts and recordings of one split, side by side."""

    image: NDArray[np.int64]  # [rows]
    text: NDArray[np.int64]
    audio: NDArray[np.int64]
    labels: NDArray[np.int64]


def draw_pairs(split: Split, *, seed: int) -> Pairs:
    """Every image once, in order, each with a text and a recording of its class."""
    rng = np.random.default_rng(seed)
    labels = split.images.labels
    return Pairs(
        image=np.arange(len(labels)),
        text=ClassRows.of(split.texts.labels).draw(labels, rng.random(len(labels))),
        audio=ClassRows.of(split.clips.labels).draw(labels, rng.random(len(labels))),
        labels=labels,
    )


@dataclass(frozen=True, slots=True)
class ClassRows:
    """Rows sorted by class, to draw one of a given class at once for many."""

    order: NDArray[np.int64]  # [rows]
    first: NDArray[np.int64]  # [classes]
    count: NDArray[np.int64]  # [classes]

    @classmethod
    def of(cls, labels: NDArray[np.int64]) -> ClassRows:
        count = np.bincount(labels)
        return cls(order=np.argsort(labels, kind="stable"), first=np.cumsum(count) - count, count=count)

    def draw(self, wanted: NDArray[np.int64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
        """A row of each wanted class; `chance` in 0..1 decides which."""
        assert (self.count[np.unique(wanted)] > 0).all(), "a class without rows cannot be paired"
        return self.order[self.first[wanted] + (chance * self.count[wanted]).astype(np.int64)]
