"""Which bundles are live: `models/<name>/<version>` on disk to models that answer.

A bundle goes live only after its files were verified, its graphs loaded and its golden cases answered
as at export, which also warms it up. One bad bundle does not keep the others from serving.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.bundle.errors import BundleError, ManifestInvalid
from app.bundle.folder import read_bundle
from app.runtime.errors import DeviceUnavailable, RuntimeFault
from app.runtime.golden import golden_samples, replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from app.serving.errors import ModelAmbiguous, ModelNotFound, NoLiveModel
from app.serving.model import LiveModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """A bundle that is in the folder but does not serve, and why."""

    name: str
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """What a models folder gave."""

    models: tuple[LiveModel, ...]
    refused: tuple[Refused, ...]


def open_models(folder: Path, *, device: Device, threads: int) -> Opened:
    """Open every version of every model in a folder.

    Raises NoLiveModel if none can serve, DeviceUnavailable if the device cannot.
    """
    models: list[LiveModel] = []
    refused: list[Refused] = []
    for path in _versions(folder):
        name, version = path.parent.name, int(path.name)
        try:
            models.append(_open_verified(path, device=device, threads=threads))
        except DeviceUnavailable:
            raise
        except (BundleError, RuntimeFault) as error:
            log.error("bundle refused: %s", error, extra={"model": name, "version": version})  # noqa: TRY400
            refused.append(Refused(name=name, version=version, reason=str(error)))
    if not models:
        reasons = "".join(f" {bad.name}/{bad.version}: {bad.reason}" for bad in refused)
        raise NoLiveModel(f"{folder}: no bundle at <name>/<version> can be served.{reasons}")
    return Opened(models=tuple(models), refused=tuple(refused))


def _open_verified(path: Path, *, device: Device, threads: int) -> LiveModel:
    bundle = read_bundle(path)
    manifest = bundle.manifest
    if (manifest.name, str(manifest.version)) != (path.parent.name, path.name):
        raise ManifestInvalid(
            f"it belongs to {manifest.name}/{manifest.version}. Put the bundle into the folder of that name.",
            file=f"{path.parent.name}/{path.name}",
        )
    predictor = Predictor.open(bundle, device=device, threads=threads)
    replay(bundle, predictor)
    model = LiveModel(predictor)
    model.warm_up(golden_samples(bundle, predictor))
    log.info(
        "model opened", extra={"model": manifest.name, "version": manifest.version, "device": str(device)}
    )
    return model


def _versions(folder: Path) -> Iterator[Path]:
    """Folders of the form <name>/<number>; hidden names are bundles still being written."""
    for path in sorted(folder.glob("[!.]*/[0-9]*")):
        if path.is_dir() and path.name.isascii() and path.name.isdigit():
            yield path


class Repository:
    """The live models by name and version."""

    def __init__(
        self, models: Sequence[LiveModel], *, refused: Sequence[Refused], default: str | None
    ) -> None:
        self._models = {(model.manifest.name, model.manifest.version): model for model in models}
        self.refused = tuple(refused)
        self._default = default
        if default is not None and default not in self._names():
            raise NoLiveModel(f"The default model '{default}' is not live. Live: {', '.join(self._names())}.")

    def __iter__(self) -> Iterator[LiveModel]:
        return iter(self._models.values())

    @property
    def dearest(self) -> LiveModel:
        """The model whose rows cost most: what to expect of a request that is not read yet."""
        return max(self, key=lambda model: model.costs.mean_row_s)

    def find(self, name: str | None = None, version: int | None = None) -> LiveModel:
        """The named model, or the default; the highest version unless one is named.

        Raises ModelNotFound or ModelAmbiguous.
        """
        name = name or self._default or self._only_name()
        versions = [known for model, known in self._models if model == name]
        if not versions:
            raise ModelNotFound("No model of that name is served. GET /v1/models lists them.", part="model")
        if version is not None and version not in versions:
            raise ModelNotFound("That version is not served. GET /v1/models lists them.", part="version")
        return self._models[name, version if version is not None else max(versions)]

    def _only_name(self) -> str:
        names = self._names()
        if len(names) > 1:
            raise ModelAmbiguous(
                "Several models are served. Name one in the form's model field.", part="model"
            )
        return names[0]

    def _names(self) -> list[str]:
        return sorted({name for name, _ in self._models})
