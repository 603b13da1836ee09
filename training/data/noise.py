"""Speech in noise at a stated ratio, and where the noise comes from: ESC-10, K. J. Piczak, CC BY 3.0.

400 recordings of rain, dogs, clocks and seven more, in five folds; takes of one source are in one fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.decode import decode_audio
from app.bundle.errors import InputError
from app.bundle.manifest import AudioInput
from app.bundle.prepare import prepare_audio
from training.data.archives import read_members, read_table
from training.data.download import Source
from training.data.errors import DataCorrupt
from training.data.home import Home

SOURCE: Final = Source(
    path="esc10/esc10_16k_ogg.zip",
    mirrors=(),
    sha256="58f8d8bb697099fb76abe8bded6763594f982dac6a0c9d14b4db1b050c462472",
    origin="github.com/karolpiczak/ESC-10 at commit 553c8f1 (16 kHz Ogg Vorbis, and meta.csv)",
)
_AUDIBLE: Final = 0.1  # of the power of a clip's loudest cut; below it is the silence that pads short clips
_STEPS: Final = 2**15  # of a 16-bit recording, for each side of zero


@dataclass(frozen=True, slots=True)
class Noise:
    samples: NDArray[np.float32]  # [samples], mono, at the model's rate
    kind: str  # such as "rain"
    fold: int  # 1-5


def load_noise(home: Home, spec: AudioInput, source: Source = SOURCE) -> tuple[Noise, ...]:
    """All recordings, in the order of their names. Raises DataError."""
    path = home.file(source)
    told = sorted(read_table(path, "meta.csv"), key=lambda row: row["file"])
    bodies = read_members(path, (row["file"] for row in told))
    try:
        return tuple(
            Noise(
                samples=prepare_audio(decode_audio(bodies[row["file"]], spec), spec),
                kind=row["class"],
                fold=int(row["fold"]),
            )
            for row in told
        )
    except InputError as error:
        raise DataCorrupt(f"{path.name} holds a recording that cannot be decoded. Fetch it again.") from error


def mixed(
    speech: NDArray[np.float32], noise: NDArray[np.float32], *, snr_db: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Speech with a random cut of the noise, `snr_db` below the speech in mean power over the recording.

    The sum is made softer where it would pass 1, which keeps the ratio, and rounded to 16 bits, as a file
    of it would be.
    """
    start = _audible_start(noise, len(speech), rng)
    cut = noise[start : start + len(speech)].astype(np.float64)
    gain = np.sqrt(np.mean(speech.astype(np.float64) ** 2) / np.mean(cut**2) / 10 ** (snr_db / 10))
    total = speech + gain * cut
    total /= max(1.0, float(np.abs(total).max()))
    steps = np.rint(total * _STEPS).clip(-_STEPS, _STEPS - 1)
    rounded: NDArray[np.float32] = (steps / _STEPS).astype(np.float32)
    return rounded


def _audible_start(noise: NDArray[np.float32], length: int, rng: np.random.Generator) -> int:
    """A random beginning of a cut that is not (nearly) silent: silence cannot be scaled to a ratio."""
    assert len(noise) >= length, "noise outlasts what is said"
    energy = np.concatenate([[0.0], np.cumsum(noise.astype(np.float64) ** 2)])
    power = energy[length:] - energy[: len(energy) - length]
    audible = np.flatnonzero(power >= _AUDIBLE * power.max())
    return int(audible[rng.integers(len(audible))])
