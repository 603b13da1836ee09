"""A folder on disk to a live model: verified, loaded, answering as at export, warm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from app.bundle.budget import Hold, unbounded
from app.bundle.errors import ManifestInvalid
from app.bundle.folder import read_bundle
from app.runtime.golden import golden_samples, replay
from app.runtime.predictor import Predictor
from app.runtime.session import Device
from app.serving.model import LiveModel

log = logging.getLogger(__name__)

Loader = Callable[[Path], LiveModel]


def loader(*, device: Device, threads: int, hold: Hold = unbounded) -> Loader:
    """How this server brings a bundle to life; `hold` bounds the pixels that all models decode at once.

    What it returns raises BundleError or RuntimeFault.
    """

    def load(path: Path) -> LiveModel:
        bundle = read_bundle(path)
        manifest = bundle.manifest
        if (manifest.name, str(manifest.version)) != (path.parent.name, path.name):
            raise ManifestInvalid(
                f"it belongs to {manifest.name}/{manifest.version}. Put it into the folder of that name.",
                file=f"{path.parent.name}/{path.name}",
            )
        predictor = Predictor.open(bundle, device=device, threads=threads, hold=hold)
        replay(bundle, predictor)
        model = LiveModel(predictor)
        model.warm_up(golden_samples(bundle, predictor))
        about = {"model": manifest.name, "version": manifest.version, "device": str(device)}
        log.info("model is live", extra=about)
        return model

    return load
