"""One row of inputs in its three states: raw bytes, prepared arrays, part of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES, Inputs, Modality

Arrays = dict[str, NDArray[np.generic]]
_Number = TypeVar("_Number", np.int32, np.float32)

# A row joins a run of an encoder if the padding that this costs is below the price of another run.
# In elements of one row: tokens, samples. Measured on the digits encoders (python -m benchmarks.padding).
_RUN_PRICE: dict[Modality, int] = {"text": 48, "audio": 2_000}


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
    """Prepared arrays of one row, without a batch axis. None is absent.

    A modality that was encoded before comes as its `features` instead; no encoder runs for it again.
    """

    image: NDArray[np.uint8] | None = None  # [height, width, 3]
    text: NDArray[np.int32] | None = None  # [tokens]
    audio: NDArray[np.float32] | None = None  # [samples]
    warnings: tuple[InputWarning, ...] = ()
    features: Mapping[Modality, NDArray[np.float32]] = field(default_factory=dict)
    prepare_s: Mapping[Modality, float] = field(default_factory=dict)  # what decoding and preparing took
    is_explained: bool = False  # it is answered for every subset of its modalities, see attribution.py

    def has(self, modality: Modality) -> bool:
        return getattr(self, modality) is not None or modality in self.features

    @property
    def present(self) -> tuple[Modality, ...]:
        return tuple(name for name in MODALITIES if self.has(name))

    @property
    def answers(self) -> int:
        """How often the fusion runs for it."""
        return 2 ** len(self.present) - 1 if self.is_explained else 1

    def length(self, modality: Modality) -> int:
        """What its encoder reads: tokens or samples; 1 for an image, whose size is fixed; 0 for nothing."""
        array = getattr(self, modality)
        return 0 if array is None else 1 if modality == "image" else len(array)


@dataclass(frozen=True, slots=True)
class EncoderRun:
    """Rows of one modality that go through its encoder together, padded to the longest of them."""

    modality: Modality
    rows: NDArray[np.intp]  # indices into the batch
    inputs: Arrays
    length: int  # of every padded row
    padding: int  # elements that no row brought


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows side by side: which modalities each has, and the encoder runs that cover them."""

    size: int
    present: NDArray[np.bool_]  # [rows, modalities], in the manifest's order
    runs: tuple[EncoderRun, ...]


def collate(samples: list[Sample], inputs: Inputs) -> Batch:
    """Put samples side by side. The graphs mask padding, so a row answers as it does alone."""
    assert samples, "a batch has at least one row"
    present = np.array([[sample.has(name) for name in inputs.names] for sample in samples])
    runs = [run for name in inputs.names for run in _runs(name, samples, inputs)]
    return Batch(size=len(samples), present=present, runs=tuple(runs))


def _runs(modality: Modality, samples: list[Sample], inputs: Inputs) -> Iterator[EncoderRun]:
    lengths = {row: sample.length(modality) for row, sample in enumerate(samples)}
    for rows in _by_length({row: n for row, n in lengths.items() if n}, price=_RUN_PRICE.get(modality, 0)):
        longest = lengths[rows[0]]
        chosen = sorted(rows)
        yield EncoderRun(
            modality=modality,
            rows=np.array(chosen, dtype=np.intp),
            inputs=side_by_side(modality, [samples[row] for row in chosen], inputs),
            length=longest,
            padding=sum(longest - lengths[row] for row in rows),
        )


def _by_length(lengths: dict[int, int], *, price: int) -> Iterator[list[int]]:
    """Rows in groups, longest first; a group closes when its padding would cost more than another run."""
    group: list[int] = []
    padding = 0
    for row in sorted(lengths, key=lengths.__getitem__, reverse=True):
        padding += lengths[group[0]] - lengths[row] if group else 0
        if padding > price:
            yield group
            group, padding = [], 0
        group.append(row)
    if group:
        yield group


def side_by_side(modality: Modality, samples: list[Sample], inputs: Inputs) -> Arrays:
    """What the modality's encoder reads: the samples' arrays, padded to the longest of them."""
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
