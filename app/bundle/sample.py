"""One row of inputs in its three states: raw bytes, prepared arrays, part of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, Inputs, Modality

Arrays = dict[str, NDArray[np.generic]]
_Number = TypeVar("_Number", np.int32, np.float32)


@dataclass(frozen=True, slots=True)
class RawInputs:
    """What a caller hands in: encoded media and UTF-8 text. None is absent; b"" is present and empty."""

    image: bytes | None = None
    text: bytes | None = None
    audio: bytes | None = None

    @property
    def present(self) -> tuple[Modality, ...]:
        return tuple(name for name in MODALITIES if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class InputWarning:
    """Something about an accepted input that its sender should know."""

    part: Modality
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Prepared arrays of one row, without a batch axis. None is absent."""

    image: NDArray[np.uint8] | None = None  # [height, width, 3]
    text: NDArray[np.int32] | None = None  # [tokens]
    audio: NDArray[np.float32] | None = None  # [samples]
    warnings: tuple[InputWarning, ...] = ()

    @property
    def present(self) -> tuple[Modality, ...]:
        return tuple(name for name in MODALITIES if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows side by side.

    `rows[m]` are the indices of the rows that have modality m, ascending; `encoder_inputs[m]` holds
    arrays for just those rows. `present` is bool [rows, modalities] in the manifest's order.
    """

    size: int
    present: NDArray[np.bool_]
    rows: dict[Modality, NDArray[np.intp]]
    encoder_inputs: dict[Modality, Arrays]


def collate(samples: list[Sample], inputs: Inputs) -> Batch:
    """Put samples side by side, each padded to the longest of its own modality.

    The graphs mask the padding, so a row answers as it does alone.
    """
    assert samples, "a batch has at least one row"
    rows: dict[Modality, NDArray[np.intp]] = {}
    encoder_inputs: dict[Modality, Arrays] = {}
    present = np.zeros((len(samples), len(inputs.names)), dtype=np.bool_)
    for column, modality in enumerate(inputs.names):
        having = [row for row, sample in enumerate(samples) if getattr(sample, modality) is not None]
        present[having, column] = True
        if having:
            rows[modality] = np.array(having, dtype=np.intp)
            encoder_inputs[modality] = _encoder_inputs(modality, [samples[row] for row in having], inputs)
    return Batch(size=len(samples), present=present, rows=rows, encoder_inputs=encoder_inputs)


def _encoder_inputs(modality: Modality, samples: list[Sample], inputs: Inputs) -> Arrays:
    if modality == "image":
        return {"image": np.stack([s.image for s in samples if s.image is not None])}
    if modality == "text":
        assert inputs.text is not None
        return {"text": _pad([s.text for s in samples if s.text is not None], fill=inputs.text.pad_id)}
    sounds = [s.audio for s in samples if s.audio is not None]
    lengths = np.array([len(sound) for sound in sounds], dtype=np.int32)
    return {"audio": _pad(sounds, fill=0), "audio_length": lengths}


def _pad(rows: list[NDArray[_Number]], *, fill: int) -> NDArray[_Number]:
    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest), fill, dtype=rows[0].dtype)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
