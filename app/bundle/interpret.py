"""What the fusion graph puts out, as an answer: labels, probabilities, what each modality says on its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import Manifest, Modality


@dataclass(frozen=True, slots=True)
class RowOutputs:
    """One row of the fusion graph's outputs, see `manifest.Fusion`, and of the encoders' before it."""

    logits: NDArray[np.float32]  # [labels]
    probabilities: NDArray[np.float32]  # [labels]
    embedding: NDArray[np.float32]  # [embedding]
    modality_probabilities: NDArray[np.float32]  # [modalities, labels]
    features: tuple[NDArray[np.float32], ...]  # of each modality, in the same order; zeros where it is absent

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.probabilities).all())

    def named_features(self, manifest: Manifest) -> dict[Modality, NDArray[np.float32]]:
        return dict(zip(manifest.inputs.names, self.features, strict=True))


@dataclass(frozen=True, slots=True)
class ClassProbability:
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one row. `top` starts with the prediction itself."""

    top: tuple[ClassProbability, ...]
    used: tuple[Modality, ...]
    missing: tuple[Modality, ...]
    by_modality: dict[Modality, ClassProbability]

    @property
    def best(self) -> ClassProbability:
        return self.top[0]


def interpret(
    outputs: RowOutputs, used: tuple[Modality, ...], manifest: Manifest, *, top_k: int
) -> Prediction:
    """The `top_k` most probable classes, ties by the manifest's order, and each used modality's favourite."""
    order = np.argsort(-outputs.probabilities, kind="stable")[:top_k]
    top = tuple(_named(outputs.probabilities, index, manifest) for index in order)
    names = manifest.inputs.names
    by_modality = {
        name: _named(said, np.argmax(said), manifest)
        for name, said in zip(names, outputs.modality_probabilities, strict=True)
        if name in used
    }
    missing = tuple(name for name in names if name not in used)
    return Prediction(top=top, used=used, missing=missing, by_modality=by_modality)


def _named(probabilities: NDArray[np.float32], index: np.intp, manifest: Manifest) -> ClassProbability:
    return ClassProbability(label=manifest.labels[index], probability=float(probabilities[index]))
