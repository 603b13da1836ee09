"""Encoders by name, pretrained or small, on the rows of one's own manifest."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from app.bundle.manifest import MODALITIES, Fit, Inputs, Modality, Task
from training.data.cache import Cache
from training.data.check import labels_of
from training.data.dataset import Dataset
from training.data.errors import ManifestUnfit
from training.data.home import Home
from training.data.load import load_manifest
from training.data.manifest import read_manifest
from training.encoders.sources import Source, source_of
from training.encoders.specs import EncoderSpec, PretrainedAudio, PretrainedImage, PretrainedText
from training.fusion.contract import FusionSpec
from training.recipe import About, Recipe, Schedule

FINETUNE: Final = "finetune"
_WIDTH: Final = 128
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRows:
    """What the recipe is told: JSON-able, so that export can make the same recipe again.

    `encoders` names one for every modality that is to be read, see encoders/sources.py. Raises ValueError.
    """

    manifest: str  # path of the table of rows
    encoders: dict[Modality, str]
    tune: tuple[Modality, ...] = ()  # whose pretrained weights are trained on; those of others are frozen
    task: Task = "classification"
    fit: Fit | None = None  # of pictures, instead of what their encoder's own files say
    name: str = FINETUNE  # of the bundle

    def __post_init__(self) -> None:
        if not self.encoders or not set(self.encoders) <= set(MODALITIES):
            raise ValueError(f"name an encoder for at least one of {', '.join(MODALITIES)}.")
        if strange := [name for name in self.tune if name not in self.encoders]:
            raise ValueError(f"'{strange[0]}' is to be tuned, and no encoder is named for it.")
        if self.fit is not None and "image" not in self.encoders:
            raise ValueError(f"the fit '{self.fit}' is for images, and no encoder is named for them.")
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"'{self.name}' is no name of a model. Use a-z, 0-9, _ and -, at most 63 of them."
            )


def finetune(told: OwnRows) -> Recipe:
    """Raises ManifestUnreadable, ManifestUnfit, or EncoderUnfit where an encoder is not to be had."""
    manifest = Path(told.manifest)
    labels = labels_of(read_manifest(manifest, task=told.task))
    if len(labels) < 2:
        raise ManifestUnfit(
            f"{manifest.name}: the training rows have {len(labels)} labels. Two are the least."
        )
    sources = {
        name: source_of(name, told.encoders[name], is_frozen=name not in told.tune, fit=told.fit)
        for name in MODALITIES
        if name in told.encoders
    }
    inputs = Inputs(**{name: source.reads for name, source in sources.items()})
    rows = partial(_load, manifest=manifest, inputs=inputs, labels=labels, task=told.task, sources=sources)
    return Recipe(
        name=told.name,
        task=told.task,
        labels=labels,
        inputs=inputs,
        load=rows,
        encoders={name: source.spec for name, source in sources.items()},
        fusion=FusionSpec(level="feature", method="concat", width=_WIDTH, embedding=_WIDTH),
        schedule=Schedule(
            epochs=8,
            batch_size=32,
            learning_rate=1e-3,
            weight_decay=0.01,
            pretrained_rate=0.02,  # 2e-5, as most transformers are tuned
            patience=3,
        ),
        about=About(
            title=f"{told.name}: {', '.join(sources)}",
            data=f"The rows of `{manifest.name}`.",
            rows="The manifest's own test rows; those of one group are not independent.",
        ),
    )


def _load(
    _: Home,
    cache: Cache,
    *,
    manifest: Path,
    inputs: Inputs,
    labels: tuple[str, ...],
    task: Task,
    sources: dict[Modality, Source],
) -> Dataset:
    dataset = load_manifest(manifest, inputs, labels, cache, task=task)
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        columns = [MODALITIES.index(modality) for modality in inputs.names]
        if not split.pairing.rows(0).present[:, columns].all(axis=1).any():
            raise ManifestUnfit(
                f"{manifest.name}: no row of the split '{name}' holds {' and '.join(inputs.names)} together, "
                "so nothing says how they answer together. Bring such rows, or leave a modality out."
            )
    present = dataset.train.pairing.rows(0).present
    for modality in inputs.names:
        if not present[:, MODALITIES.index(modality)].any():
            raise ManifestUnfit(f"{manifest.name}: no training row has {modality}. Leave its encoder out.")
    weights = {name: told for name, source in sources.items() if (told := _origin(source.spec)) is not None}
    return Dataset(
        dataset.train, dataset.validation, dataset.test, dataset.provenance | {"pretrained": weights}
    )


def _origin(spec: EncoderSpec) -> dict[str, Any] | None:
    """Which weights came trained: the hub's id and commit, or the digest of a folder's files."""
    if not isinstance(spec, PretrainedImage | PretrainedText | PretrainedAudio):
        return None
    folder = Path(spec.source)
    if not folder.is_dir():
        return {"id": spec.source, "revision": spec.revision}
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return {"folder": folder.name, "sha256": digest.hexdigest()}
