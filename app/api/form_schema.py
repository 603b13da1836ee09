"""The form of POST /v1/predict for OpenAPI: FastAPI cannot see a form that is read from the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.bundle.manifest import MODALITIES, Manifest

_MEDIA = {
    "image": ("JPEG, PNG or WebP.", "image/png, image/jpeg, image/webp"),
    "audio": ("WAV, FLAC, OGG or MP3.", "audio/wav, audio/flac, audio/ogg, audio/mpeg"),
}
# No NUL, and something that is not blank in Python, which knows a few blanks more than \\s does.
_WORDS = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085\ufeff][^\u0000]*$"
MAX_VERSION = 2**31


def predict_form(manifests: Sequence[Manifest], limits: Mapping[str, int]) -> dict[str, Any]:
    """The request body. What it says is accepted, some served model accepts."""
    about: dict[str, dict[str, Any]] = {
        name: {"type": "string", "format": "binary", "description": said}
        for name, (said, _) in _MEDIA.items()
    }
    texts = [manifest.inputs.text.max_characters for manifest in manifests if manifest.inputs.text]
    about["text"] = {
        "type": "string",
        "minLength": 1,
        "maxLength": max(texts, default=1),
        "pattern": _WORDS,
        "description": "UTF-8.",
        "examples": ["sept"],
    }
    about |= _parameters(max_labels=max(len(manifest.labels) for manifest in manifests))
    schema = {
        "type": "object",
        "description": "At least one of the modalities.",
        "properties": {name: about[name] | {"x-max-bytes": limit} for name, limit in limits.items()},
        "not": {"properties": dict.fromkeys((name for name in MODALITIES if name in limits), False)},
        "additionalProperties": False,
    }
    encoding = {name: {"contentType": kinds} for name, (_, kinds) in _MEDIA.items() if name in limits}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema, "encoding": encoding}}}


def _parameters(*, max_labels: int) -> dict[str, dict[str, Any]]:
    return {
        "model": {
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$",
            "description": "Name of a served model; needed if there are several.",
        },
        "version": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_VERSION,
            "description": "The highest served, if left out.",
        },
        "top_k": {
            "type": "integer",
            "minimum": 1,
            "maximum": max_labels,
            "description": "How many classes to list.",
        },
    }
