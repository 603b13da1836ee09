"""One number for a built set, to say that two builds are the same to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES
from training.data.dataset import Dataset, FixedRows, PairedByClass, Split
from training.data.items import Items


def with_checksum(dataset: Dataset) -> Dataset:
    """The same set, with its checksum in the provenance."""
    return replace(dataset, provenance={**dataset.provenance, "checksum": checksum(dataset)})


def checksum(dataset: Dataset) -> str:
    """sha256 over train, validation, test: in each the images, texts, recordings, then what pairs them.

    Every array counts with its shape and little-endian, so that no two sets run into the same bytes.
    """
    total = hashlib.sha256()
    for split in (dataset.train, dataset.validation, dataset.test):
        for part in chain(_of_items(split.items), _of_pairing(split)):
            array = np.ascontiguousarray(part)
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            total.update(f"{little.dtype.str} {little.shape}\n".encode())
            total.update(little.data)
    return total.hexdigest()


def _of_items(items: Items) -> Iterator[NDArray[Any]]:
    if items.images is not None:
        yield items.images.pixels
    if items.texts is not None:
        yield _strings(items.texts.strings)
    if items.clips is not None:
        yield items.clips.bounds
        yield items.clips.samples


def _of_pairing(split: Split) -> Iterator[NDArray[Any]]:
    pairing = split.pairing
    if isinstance(pairing, FixedRows):
        rows = pairing.fixed
        yield from (rows.items, rows.targets, rows.groups, *_columns(rows.columns))
    else:
        assert isinstance(pairing, PairedByClass), "a pairing that a checksum does not know"
        yield _strings((pairing.anchor,))
        for name in MODALITIES:
            if (held := pairing.by_modality.get(name)) is not None:
                yield from (held.labels, held.groups, *_columns(held.columns))


def _columns(columns: Mapping[str, NDArray[np.str_]]) -> Iterator[NDArray[Any]]:
    for name, values in sorted(columns.items()):
        yield _strings((name, *values.tolist()))


def _strings(strings: tuple[str, ...]) -> NDArray[np.uint8]:
    """UTF-8, each with its length before it."""
    bodies = [string.encode("utf-8", "surrogatepass") for string in strings]
    told = b"".join(len(body).to_bytes(8, "little") + body for body in bodies)
    return np.frombuffer(told, np.uint8)
