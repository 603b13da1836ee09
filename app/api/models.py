"""GET /v1/models: what is served, and what each model accepts."""

from __future__ import annotations

from fastapi import APIRouter

from app.api import schemas
from app.bundle.manifest import Inputs
from app.serving.model import LiveModel
from app.serving.repository import Repository


def models_router(repository: Repository) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get(
        "/v1/models",
        operation_id="models",
        summary="List the served models",
        response_model_exclude_none=True,
    )
    async def models() -> schemas.Models:
        return schemas.Models(
            models=[_model(model) for model in repository],
            refused=[
                schemas.RefusedModel(name=bad.name, version=bad.version)
                for bad in repository.index()
                if bad.is_refused
            ],
        )

    return router


def _model(model: LiveModel) -> schemas.Model:
    manifest = model.manifest
    conformal = manifest.calibration.conformal
    return schemas.Model(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        task=manifest.task,
        labels=list(manifest.labels),
        thresholds=list(manifest.label_thresholds) if manifest.is_multilabel else None,
        prediction_set_level=conformal and conformal.level,
        limits=_limits(manifest.inputs),
        fusion=manifest.fusion.method,
        device=model.device,
        created=manifest.created.isoformat(),
    )


def _limits(inputs: Inputs) -> schemas.Limits:
    image, text, audio = inputs.image, inputs.text, inputs.audio
    return schemas.Limits(
        image=image and schemas.ImageLimits(max_bytes=image.max_bytes, max_pixels=image.max_pixels),
        text=text
        and schemas.TextLimits(
            max_bytes=text.max_bytes, max_characters=text.max_characters, max_tokens=text.max_tokens
        ),
        audio=audio and schemas.AudioLimits(max_bytes=audio.max_bytes, max_seconds=audio.max_seconds),
    )
