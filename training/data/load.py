"""A manifest's rows to a `Dataset`: distinct inputs once, rows that name them by number, splits apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.bundle.decode import decode_text
from app.bundle.errors import InputError
from app.bundle.manifest import MODALITIES, ImageInput, Inputs, Modality, Task, TextInput
from training.data.cache import Cache, Undecodable, digest_of
from training.data.check import (
    SPLITS,
    Contents,
    Finding,
    contents_of,
    empty_splits,
    labels_of,
    undecodable_rows,
    wrong_rows,
)
from training.data.dataset import ABSENT, Dataset, FixedRows, Rows, Split
from training.data.errors import ManifestUnfit
from training.data.items import Clips, Images, Items, Texts
from training.data.manifest import Body, Entry, read_body, read_manifest

_SHOWN: Final = 3  # of what is wrong, in one message


def load_manifest(
    manifest: Path,
    inputs: Inputs,
    labels: tuple[str, ...] | None,
    cache: Cache,
    *,
    task: Task = "classification",
) -> Dataset:
    """Rows as they are written, whatever the seed. Without `labels`, they are those of the training rows.

    Raises DataMissing, ManifestUnreadable, or ManifestUnfit for anything that `check` finds: nothing is left
    out in silence.
    """
    entries = read_manifest(manifest, task=task)
    contents = contents_of(entries, inputs)
    refuse([*contents.missing, *wrong_rows(entries, contents, labels)])
    told = labels if labels is not None else labels_of(entries)
    provenance = {
        "manifest": {
            "name": manifest.name,
            "sha256": digest_of(manifest),
            "contents_sha256": _digest_of_all(contents),
            "rows": len(entries),
        }
    }
    return dataset_of(entries, contents, inputs, told, cache, task=task, provenance=provenance)


def dataset_of(
    entries: Sequence[Entry],
    contents: Contents,
    inputs: Inputs,
    labels: tuple[str, ...],
    cache: Cache,
    *,
    provenance: dict[str, Any],
    task: Task = "classification",
) -> Dataset:
    """Rows whose files and splits are known to be there; what cannot be decoded is seen here.

    A row without a label has `ABSENT` for its class. Raises ManifestUnfit.
    """
    chosen = {
        name: np.array([at for at, entry in enumerate(entries) if entry.split == name], np.int64)
        for name in SPLITS
    }
    refuse(list(empty_splits(entries)))
    numbers = {
        split: {name: _numbered(contents.digests[name], rows) for name in inputs.names}
        for split, rows in chosen.items()
    }
    items = _items(entries, contents, inputs, numbers, cache)
    every = Rows(
        items=np.full((len(entries), len(MODALITIES)), ABSENT, np.int64),  # numbered within a split, below
        targets=_targets(entries, labels, task),
        groups=_groups(entries, contents),
        columns=_columns(entries),
    )

    def split(name: str) -> Split:
        rows = every.take(chosen[name])
        for modality, number in numbers[name].items():
            digests = contents.digests[modality]
            held = [digests[at] for at in chosen[name]]
            rows.items[:, MODALITIES.index(modality)] = [
                ABSENT if digest is None else number[digest] for digest in held
            ]
        return Split(items=items[name], pairing=FixedRows(rows))

    return Dataset(
        train=split("train"), validation=split("validation"), test=split("test"), provenance=provenance
    )


def _digest_of_all(contents: Contents) -> str:
    """Of what the rows hold, whatever the files are called."""
    return hashlib.sha256(json.dumps(contents.digests).encode()).hexdigest()


_Numbers = dict[str, int]  # digest to item number, in order


def _numbered(digests: Sequence[str | None], rows: NDArray[np.int64]) -> _Numbers:
    held = dict.fromkeys(digest for at in rows if (digest := digests[at]) is not None)
    return {digest: number for number, digest in enumerate(held)}


def _items(
    entries: Sequence[Entry],
    contents: Contents,
    inputs: Inputs,
    numbers: Mapping[str, Mapping[Modality, _Numbers]],
    cache: Cache,
) -> dict[str, Items]:
    """Each split's own. Raises ManifestUnfit, after trying all."""
    read: dict[Modality, _Parts] = {}
    reasons: dict[Modality, dict[str, str]] = {}
    for name in inputs.names:
        try:
            read[name] = _read(name, contents, inputs, [numbers[split][name] for split in SPLITS], cache)
        except Undecodable as error:
            reasons[name] = error.reasons
    refuse(list(undecodable_rows(entries, contents, reasons)))

    def held(name: Modality, at: int) -> Any:
        parts = read.get(name)
        return parts[at] if parts and len(parts[at]) else None

    return {
        split: Items(images=held("image", at), texts=held("text", at), clips=held("audio", at))
        for at, split in enumerate(SPLITS)
    }


_Parts = list[Images] | list[Texts] | list[Clips]  # one for each split


def _read(
    name: Modality, contents: Contents, inputs: Inputs, parts: Sequence[_Numbers], cache: Cache
) -> _Parts:
    """Images and recordings of all splits from one cache, cut where a split begins. Raises Undecodable."""
    bodies = contents.bodies[name]
    spec = inputs.encoder(name)
    if isinstance(spec, TextInput):
        return [_texts(part, bodies, spec) for part in parts]
    found = {digest: bodies[digest] for part in parts for digest in part}
    spans = list(pairwise(np.cumsum([0, *(len(part) for part in parts)]).tolist()))
    assert len(found) == spans[-1][1], "splits share no image and no recording"
    if not found:
        return []
    if isinstance(spec, ImageInput):
        pixels = cache.images(found, spec).pixels
        return [Images(pixels[start:end]) for start, end in spans]
    whole = cache.clips(found, spec)
    return [_cut(whole, start, end) for start, end in spans]


def _cut(whole: Clips, start: int, end: int) -> Clips:
    first, last = int(whole.bounds[start]), int(whole.bounds[end])
    return Clips(samples=whole.samples[first:last], bounds=whole.bounds[start : end + 1] - first)


def _texts(part: _Numbers, bodies: Mapping[str, Body], spec: TextInput) -> Texts:
    """Raises Undecodable, after trying all."""
    strings: list[str] = []
    reasons: dict[str, str] = {}
    for digest in part:
        try:
            strings.append(decode_text(read_body(bodies[digest]), spec))
        except InputError as error:
            reasons[digest] = error.message
    if reasons:
        raise Undecodable(reasons)
    return Texts(tuple(strings))


def _targets(
    entries: Sequence[Entry], labels: tuple[str, ...], task: Task
) -> NDArray[np.int64] | NDArray[np.float32]:
    number = {label: at for at, label in enumerate(labels)}
    if task == "classification":
        return np.array([number[entry.labels[0]] if entry.labels else ABSENT for entry in entries], np.int64)
    targets = np.zeros((len(entries), len(labels)), np.float32)
    for row, entry in enumerate(entries):
        targets[row, [number[label] for label in entry.labels or ()]] = 1
    return targets


def _groups(entries: Sequence[Entry], contents: Contents) -> NDArray[np.int64]:
    """[rows, modalities]: by the group that was written, else by the content, so that repeats share one."""
    groups = np.full((len(entries), len(MODALITIES)), ABSENT, np.int64)
    for at, name in enumerate(MODALITIES):
        numbers: dict[tuple[str, str], int] = {}
        for row, digest in enumerate(contents.digests.get(name, ())):
            if digest is not None:
                group = entries[row].group
                key = ("content", digest) if group is None else ("group", group)
                groups[row, at] = numbers.setdefault(key, len(numbers))
    return groups


def _columns(entries: Sequence[Entry]) -> dict[str, NDArray[np.str_]]:
    names = dict.fromkeys(name for entry in entries for name in entry.columns)
    return {name: np.array([entry.columns.get(name, "") for entry in entries]) for name in names}


def refuse(found: Sequence[Finding]) -> None:
    """Raises ManifestUnfit if anything was found, with the first few."""
    if found:
        told = "; ".join(map(_told, found[:_SHOWN]))
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ManifestUnfit(f"{told}{more}.")


def _told(one: Finding) -> str:
    row = f" (row {one.rows[0]})" if one.rows else ""
    return f"{one.kind}: {one.message}{row}"
