"""Arrays of one row that a caller prepared itself, checked against the manifest.

They skip decode and prepare, so they must keep what those two promise: sizes, ranges, no NaN. A row that is
all padding, or has no samples, is absent and comes out as None.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.errors import AudioTooLong, InvalidAudio, InvalidImage, InvalidText
from app.bundle.manifest import AudioInput, ImageInput, TextInput

_LOUDEST: Final = 2.0  # decoded sound is in -1..1, and resampling overshoots that by less than a third


def check_image(pixels: NDArray[Any], spec: ImageInput) -> NDArray[np.uint8]:
    """uint8 [height, width, 3], RGB, upright, resized and cropped. Raises InvalidImage."""
    if pixels.shape != (spec.height, spec.width, 3):
        raise InvalidImage(f"A prepared image is [{spec.height}, {spec.width}, 3] here.", part="image")
    return pixels.astype(np.uint8, copy=False)


def check_tokens(ids: NDArray[Any], spec: TextInput, *, vocabulary: int) -> NDArray[np.int32] | None:
    """int32 [tokens]; the pad ids at the end are taken off. Raises InvalidText."""
    if ids.ndim != 1 or len(ids) > spec.max_tokens:
        raise InvalidText(f"A prepared text is a list of at most {spec.max_tokens} tokens here.", part="text")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise InvalidText(f"Token ids of this model are 0 to {vocabulary - 1}.", part="text")
    content = np.flatnonzero(ids != spec.pad_id)
    return ids[: content[-1] + 1].astype(np.int32, copy=False) if len(content) else None


def check_audio(samples: NDArray[Any], spec: AudioInput, *, length: int) -> NDArray[np.float32] | None:
    """float32 [samples] of which the first `length` count. Raises InvalidAudio or AudioTooLong."""
    if samples.ndim != 1 or not 0 <= length <= len(samples):
        raise InvalidAudio(
            "A prepared recording is a list of samples, and its length is at most their number.", part="audio"
        )
    if length > spec.max_seconds * spec.sample_rate:
        raise AudioTooLong(f"The recording lasts longer than {spec.max_seconds:g} s.", part="audio")
    sound = samples[:length].astype(np.float32, copy=False)
    if not (np.abs(sound) <= _LOUDEST).all():  # also when one is NaN
        raise InvalidAudio("Samples are numbers from -1 to 1.", part="audio")
    return np.pad(sound, (0, max(0, spec.min_samples - length))) if length else None
