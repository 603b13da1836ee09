"""Items gathered into what the encoders read: each modality only for the rows that have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.bundle.manifest import Inputs, Modality
from app.bundle.prepare import TextPreparer
from training.data.items import Clips, Items

Arrays = tuple[Tensor, ...]
Change = Callable[[Arrays], Arrays]  # of one modality's arrays, such as an augmentation


@dataclass(frozen=True, slots=True)
class Part:
    """One modality of a batch."""

    rows: Tensor  # int64 [rows that have it], their places in the batch
    inputs: Arrays  # as in `app.bundle.manifest`, of those rows
    is_seen: bool = False  # else; so: one array, what the encoder has seen of them


@dataclass(frozen=True, slots=True)
class Batch:
    parts: dict[Modality, Part]
    present: Tensor  # bool [rows, modalities of the model]

    def to(self, device: torch.device) -> Batch:
        parts = {
            name: replace(
                part, rows=part.rows.to(device), inputs=tuple(values.to(device) for values in part.inputs)
            )
            for name, part in self.parts.items()
        }
        return Batch(parts, self.present.to(device))


class Stock:
    """One split's items, ready to be gathered by number."""

    def __init__(self, items: Items, inputs: Inputs, tokenize: TextPreparer | None) -> None:
        self.names = inputs.names
        self._images, self._clips = items.images, items.clips
        self._text_pad = inputs.text.pad_id if inputs.text else 0
        self._min_samples = inputs.audio.min_samples if inputs.audio else 0
        self._seen: dict[Modality, Tensor] = {}
        self._tokens: NDArray[np.int32] | None = None
        if items.texts is not None and tokenize is not None:
            self._tokens = token_rows(items.texts.strings, tokenize, pad_id=self._text_pad)

    def keep(self, modality: Modality, seen: Tensor) -> None:
        """From now on give what an encoder saw of every item instead of the items: see `Encoder.see`."""
        self._seen[modality] = seen

    def is_seen(self, modality: Modality) -> bool:
        return modality in self._seen

    def gather(
        self,
        modality: Modality,
        items: NDArray[np.int64],
        change: Change | None = None,
        *,
        beside: NDArray[np.int64] | None = None,
    ) -> Arrays:
        """What the encoder of `modality` reads for these items, after `change`, or what it saw of them.

        Images come to `change` with the one or three channels that they are kept with. Rows are padded to the
        longest of the items that they stand `beside`, which are these unless others are named.
        """
        if modality in self._seen:
            assert change is None, "what is changed is not what was seen"
            return (self._seen[modality][torch.from_numpy(items)],)
        raw = getattr(self, f"_{modality}")(items, items if beside is None else beside)
        changed: Arrays = change(raw) if change and len(items) else raw
        return (as_rgb(changed[0]),) if modality == "image" else changed

    def batch(
        self,
        items: NDArray[np.int64],
        present: Tensor,
        changes: dict[Modality, Change] | None = None,
        *,
        share: slice = slice(None),
    ) -> Batch:
        """`items` and `present` are [rows, modalities of the model]; `share` is which rows are wanted.

        They are padded as the whole batch is: the moments of a batch norm count padding, too.
        """
        parts: dict[Modality, Part] = {}
        for at, name in enumerate(self.names):
            rows = present[share, at].nonzero().squeeze(1)
            beside = items[present[:, at].numpy(), at]
            chosen = items[share][rows.numpy(), at]
            inputs = self.gather(name, chosen, (changes or {}).get(name), beside=beside)
            parts[name] = Part(rows, inputs, is_seen=self.is_seen(name))
        return Batch(parts, present[share])

    def _image(self, items: NDArray[np.int64], _: NDArray[np.int64]) -> Arrays:
        assert self._images is not None, "a row has an image and its split has none"
        return (torch.from_numpy(np.ascontiguousarray(self._images.pixels[items])),)

    def _text(self, items: NDArray[np.int64], beside: NDArray[np.int64]) -> Arrays:
        assert self._tokens is not None, "a row has a text and its split has none"
        used = int((self._tokens[beside] != self._text_pad).sum(axis=1).max(initial=1))
        return (torch.from_numpy(self._tokens[items, :used].copy()),)

    def _audio(self, items: NDArray[np.int64], beside: NDArray[np.int64]) -> Arrays:
        assert self._clips is not None, "a row has a recording and its split has none"
        return padded(self._clips, items, beside, least=self._min_samples)


class Said(Stock):
    """Instead of items, what trained encoders said of them: float32 [items, ...] of each modality."""

    def __init__(self, said: dict[Modality, Tensor]) -> None:
        self.names = tuple(said)
        self._said, self._seen = said, {}

    def gather(
        self,
        modality: Modality,
        items: NDArray[np.int64],
        change: Change | None = None,
        *,
        beside: NDArray[np.int64] | None = None,  # noqa: ARG002 - nothing is padded
    ) -> Arrays:
        raw: Arrays = (self._said[modality][torch.from_numpy(items)],)
        return change(raw) if change and len(items) else raw


def padded(
    clips: Clips, items: NDArray[np.int64], beside: NDArray[np.int64], *, least: int
) -> tuple[Tensor, Tensor]:
    """float32 [rows, samples], silence after the end of each, and int32 [rows] lengths."""
    length = np.maximum(clips.lengths[items], least).astype(np.int32)
    longest = int(clips.lengths[beside].max(initial=least))
    samples = np.zeros((len(items), longest), np.float32)
    for row, item in zip(samples, items.tolist(), strict=True):
        clip = clips[item]
        row[: len(clip)] = clip
    return torch.from_numpy(samples), torch.from_numpy(length)


def token_rows(strings: tuple[str, ...], tokenize: TextPreparer, *, pad_id: int) -> NDArray[np.int32]:
    """int32 [strings, tokens], as serving tokenizes and pads."""
    ids = [tokenize(text)[0] for text in strings]
    rows = np.full((len(ids), max(len(row) for row in ids)), pad_id, np.int32)
    for row, tokens in zip(rows, ids, strict=True):
        row[: len(tokens)] = tokens
    return rows


def as_rgb(pixels: Tensor) -> Tensor:
    """uint8 [rows, height, width, 1 or 3] to [rows, height, width, 3], as `prepare_image` gives it."""
    return pixels.expand(-1, -1, -1, 3)
