"""How fast answers get worse as one modality is spoiled more and more.

The same noise is drawn at every level and only its strength changes, so a curve is not jagged by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.bundle.manifest import Modality
from training.data.items import Clips, Images, Texts
from training.data.misspellings import garble
from training.measure.bootstrap import (
    DRAWS,
    Floats,
    Grouped,
    Measured,
    Numbers,
    measure_mean,
    measure_share,
)
from training.measure.scores import is_right, row_nll

IMAGE_NOISE: Final = tuple(
    round(0.1 * step, 1) for step in range(11)
)  # standard deviation, of the range 0..1
AUDIO_SNR_DB: Final = tuple(float(snr) for snr in range(20, -21, -5))
TEXT_DAMAGE: Final = tuple(round(0.1 * step, 1) for step in range(9))  # share of the characters
UNITS: Final[dict[Modality, str]] = {
    "image": "Gaussian noise, standard deviation over range",
    "text": "share of characters damaged",
    "audio": "signal to white noise, dB",
}
_ROWS: Final = 1_000  # of noise drawn at once


@dataclass(frozen=True, slots=True)
class Point:
    level: float
    accuracy: Measured
    nll: Measured


@dataclass(frozen=True, slots=True)
class Curve:
    """`subset` was sent; `spoiled` is the one of its modalities that noise was put into."""

    spoiled: Modality
    subset: str
    unit: str
    points: tuple[Point, ...]


def robustness(
    answer: Callable[[float], Floats],
    levels: Sequence[float],
    targets: Numbers,
    groups: Numbers,
    *,
    spoiled: Modality,
    subset: str,
    draws: int = DRAWS,
) -> Curve:
    """`answer` gives probabilities [rows, labels] of rows spoiled to a level."""
    grouped = Grouped.of(groups)
    points = tuple(_point(level, answer(level), targets, grouped, draws=draws) for level in levels)
    return Curve(spoiled=spoiled, subset=subset, unit=UNITS[spoiled], points=points)


def noisy_images(images: Images, *, deviation: float, seed: int) -> Images:
    """Gaussian noise of this standard deviation, in units of the whole range, cut off at black and white."""
    rng = np.random.default_rng(seed)
    pixels = np.empty_like(images.pixels)
    for at in range(0, len(pixels), _ROWS):
        clean = images.pixels[at : at + _ROWS]
        noise = rng.standard_normal(clean.shape, np.float32)
        pixels[at : at + _ROWS] = np.clip(clean + 255 * deviation * noise, 0, 255).round()
    return Images(pixels)


def noisy_clips(clips: Clips, *, snr_db: float, seed: int) -> Clips:
    """White noise at this ratio to each clip's own mean power; cut off at full scale. Silence stays."""
    rng = np.random.default_rng(seed)
    samples = np.empty_like(clips.samples)
    for begin, end in zip(clips.bounds[:-1], clips.bounds[1:], strict=True):
        clean = clips.samples[begin:end]
        power = float(np.square(clean, dtype=np.float64).mean()) if len(clean) else 0.0
        amplitude = np.float32(np.sqrt(power / 10 ** (snr_db / 10)))
        noise = rng.standard_normal(len(clean), np.float32)
        samples[begin:end] = np.clip(clean + amplitude * noise, -1, 1)
    return Clips(samples=samples, bounds=clips.bounds)


def damaged_texts(texts: Texts, *, rate: float, seed: int) -> Texts:
    """Each character dropped, doubled, swapped with the next or replaced, with this probability."""
    rng = np.random.default_rng(seed)
    return Texts(tuple(garble(text, rate=rate, rng=rng) for text in texts.strings))


def _point(level: float, said: Floats, targets: Numbers, grouped: Grouped, *, draws: int) -> Point:
    return Point(
        level=level,
        accuracy=measure_share(is_right(said, targets), grouped, draws=draws),
        nll=measure_mean(row_nll(said, targets), grouped, draws=draws),
    )
