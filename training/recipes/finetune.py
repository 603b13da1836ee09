"""Encoders by name, pretrained or small, on the rows of one's own manifest."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from app.bundle.manifest import MODALITIES, Fit, Inputs, Modality, Task
from training.data.cache import Cache
from training.data.check import labels_of, wrong_sets
from training.data.dataset import Dataset
from training.data.errors import ManifestUnfit
from training.data.home import Home
from training.data.load import load_manifest, refuse
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

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those that are read, in their order."""
        return tuple(name for name in MODALITIES if name in self.encoders)

    @property
    def check_command(self) -> str:
        """What lists all that these rows are refused for."""
        read = (f"--encoder={name}={self.encoders[name]}" for name in self.modalities)
        return shlex.join(["python", "-m", "training", "check", self.manifest, f"--task={self.task}", *read])


def finetune(told: OwnRows) -> Recipe:
    """Raises ManifestUnreadable, ManifestUnfit, or EncoderUnfit where an encoder is not to be had."""
    manifest = Path(told.manifest)
    entries = read_manifest(manifest, task=told.task)
    with _told_how_to_check(told):
        refuse(list(wrong_sets(entries, told.modalities)))
    labels = labels_of(entries)
    sources = {
        name: source_of(name, told.encoders[name], is_frozen=name not in told.tune, fit=told.fit)
        for name in told.modalities
    }
    inputs = Inputs(**{name: source.reads for name, source in sources.items()})
    rows = partial(_load, told=told, inputs=inputs, labels=labels, sources=sources)
    return Recipe(
        name=told.name,
        called=FINETUNE,
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
    told: OwnRows,
    inputs: Inputs,
    labels: tuple[str, ...],
    sources: dict[Modality, Source],
) -> Dataset:
    with _told_how_to_check(told):
        dataset = load_manifest(Path(told.manifest), inputs, labels, cache, task=told.task)
    weights = {
        name: origin for name, source in sources.items() if (origin := _origin(source.spec)) is not None
    }
    return Dataset(
        dataset.train, dataset.validation, dataset.test, dataset.provenance | {"pretrained": weights}
    )


@contextmanager
def _told_how_to_check(told: OwnRows) -> Iterator[None]:
    try:
        yield
    except ManifestUnfit as error:
        raise ManifestUnfit(f"{error} See all with: {told.check_command}") from error


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
