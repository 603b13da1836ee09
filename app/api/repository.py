"""Settings to the models that they serve."""

from __future__ import annotations

from app.bundle.budget import PixelBudget
from app.runtime.session import find_device
from app.serving.loading import loader
from app.serving.plan import Plan
from app.serving.repository import Repository
from app.settings import Settings


def started_repository(settings: Settings) -> Repository:
    """Its models are verified and warmed up. Raises RuntimeFault or NoLiveModel."""
    repository = Repository(
        settings.models_dir,
        loader(
            device=find_device(settings.device),
            threads=settings.threads,
            hold=PixelBudget(settings.max_megapixels * 1_000_000).hold,
        ),
        plan=Plan(versions=settings.versions),
        default=settings.default_model,
    )
    repository.start()
    return repository
