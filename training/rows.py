"""A split in tensors, and batches gathered from it by row number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from app.bundle.prepare import TextPreparer
from training.data.corpus import Clips, Split


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """What the encoders read, as in `app.bundle.manifest`."""

    image: Tensor  # uint8 [rows, height, width, 3]
    text: Tensor  # int32 [rows, tokens]
    audio: Tensor  # float32 [rows, samples]
    audio_length: Tensor  # int32 [rows]


@dataclass(frozen=True, slots=True)
class Sounds:
    """Recordings side by side, each padded with silence to the longest."""

    samples: Tensor  # float32 [rows, samples]
    length: Tensor  # int32 [rows]

    @classmethod
    def of(cls, clips: Clips) -> Self:
        length = np.array([len(samples) for samples in clips.samples], np.int32)
        padded = np.zeros((len(length), length.max()), np.float32)
        for row, samples in zip(padded, clips.samples, strict=True):
            row[: len(samples)] = samples
        return cls(samples=torch.from_numpy(padded), length=torch.from_numpy(length))

    def take(self, rows: Tensor) -> Self:
        """These rows, as long as the longest of them."""
        length = self.length[rows]
        return type(self)(samples=self.samples[rows, : int(length.max())], length=length)


@dataclass(frozen=True, slots=True)
class Rows:
    """One split. The modalities have their own row numbers; pairs.py says which belong together."""

    grey: Tensor  # uint8 [images, height, width]
    text: Tensor  # int32 [texts, tokens], padded at the end
    sounds: Sounds

    @classmethod
    def of(cls, split: Split, tokenize: TextPreparer, *, pad_id: int) -> Self:
        return cls(
            grey=torch.from_numpy(split.images.pixels),
            text=token_rows(split.texts.strings, tokenize, pad_id=pad_id),
            sounds=Sounds.of(split.clips),
        )


def token_rows(strings: tuple[str, ...], tokenize: TextPreparer, *, pad_id: int) -> Tensor:
    """int32 [strings, tokens], as serving tokenizes and pads."""
    ids = [tokenize(text)[0] for text in strings]
    padded = np.full((len(ids), max(len(row) for row in ids)), pad_id, np.int32)
    for row, tokens in zip(padded, ids, strict=True):
        row[: len(tokens)] = tokens
    return torch.from_numpy(padded)


def as_rgb(grey: Tensor) -> Tensor:
    """uint8 [rows, height, width] to [rows, height, width, 3], as `prepare_image` gives it."""
    return grey.unsqueeze(3).expand(-1, -1, -1, 3)


def without_padding(text: Tensor, *, pad_id: int) -> Tensor:
    """Columns that hold a token in some row."""
    used = int((text != pad_id).sum(dim=1).max())
    return text[:, :used]
