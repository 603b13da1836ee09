"""Pictures reduced to a few numbers each and drawn again: principal components, the mean restored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_CHUNK: Final = 5_000  # pictures at a time: 31 MB of 784 pixels as float64


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    mean: NDArray[np.float64]  # [pixels]
    directions: NDArray[np.float64]  # [components, pixels], of length 1, by falling variance
    shares: NDArray[np.float64]  # [components], of the whole variance

    def redraw(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [pictures, height, width] to the same: projected and back, cut to 0..255."""
        drawn = np.empty_like(pictures)
        for start in range(0, len(pictures), _CHUNK):
            chunk = pictures[start : start + _CHUNK]
            flat = chunk.reshape(len(chunk), -1) - self.mean
            again = self.mean + flat @ self.directions.T @ self.directions
            drawn[start : start + _CHUNK] = np.rint(again).clip(0, 255).reshape(chunk.shape)
        return drawn


def fit_components(pictures: NDArray[np.uint8], *, count: int) -> Components:
    """The directions in which uint8 [pictures, height, width] vary most.

    Sums of products of bytes are whole numbers below 2**53, so float64 holds them exactly in whatever order
    a machine adds them: the covariance is the same everywhere.
    """
    size = pictures[0].size
    total, products = np.zeros(size), np.zeros((size, size))
    for start in range(0, len(pictures), _CHUNK):
        flat = pictures[start : start + _CHUNK].reshape(-1, size).astype(np.float64)
        total += flat.sum(axis=0)
        products += flat.T @ flat
    mean = total / len(pictures)
    covariance = products / len(pictures) - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)  # rising
    return Components(
        mean=mean,
        directions=np.ascontiguousarray(directions[:, ::-1].T[:count]),
        shares=variances[::-1][:count] / variances.sum(),
    )
