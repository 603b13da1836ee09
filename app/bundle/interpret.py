"""What the fusion graph puts out, as an answer: labels, probabilities, what each modality says on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.bundle.attribution import Explanation, explain
from app.bundle.manifest import Manifest, Modality


@dataclass(frozen=True, slots=True)
class RowOutputs:
    """One row of the fusion graph's outputs, see `manifest.Fusion`, and of the encoders' before it."""

    logits: NDArray[np.float32]  # [labels]
    probabilities: NDArray[np.float32]  # [labels]
    embedding: NDArray[np.float32]  # [embedding]
    modality_probabilities: NDArray[np.float32]  # [modalities, labels]
    features: tuple[NDArray[np.float32], ...]  # of each modality, in the same order; zeros where it is absent
    prediction_set: NDArray[np.bool_] | None = None  # [labels], if the bundle has conformal sets
    by_subset: Mapping[str, NDArray[np.float32]] | None = None  # probabilities [labels], of an explained row

    @property
    def is_finite(self) -> bool:
        every = (self.probabilities, *(self.by_subset or {}).values())
        return all(bool(np.isfinite(probabilities).all()) for probabilities in every)

    def named_features(self, manifest: Manifest) -> dict[Modality, NDArray[np.float32]]:
        return dict(zip(manifest.inputs.names, self.features, strict=True))


@dataclass(frozen=True, slots=True)
class ClassProbability:
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one modality makes of a row on its own."""

    label: str  # the most probable one
    probability: float
    labels: tuple[ClassProbability, ...] | None  # those that hold, best first; only of a multilabel bundle


@dataclass(frozen=True, slots=True)
class PredictionSet:
    """Labels that hold the right one with a probability of `level`, by falling probability. Never empty."""

    level: float
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one row. `top` starts with the prediction itself."""

    top: tuple[ClassProbability, ...]
    labels: tuple[ClassProbability, ...] | None  # as of an Opinion
    used: tuple[Modality, ...]
    missing: tuple[Modality, ...]
    by_modality: dict[Modality, Opinion]
    prediction_set: PredictionSet | None
    explanation: Explanation | None = None  # of the prediction, if it was asked for

    @property
    def best(self) -> ClassProbability:
        return self.top[0]


def interpret(
    outputs: RowOutputs, used: tuple[Modality, ...], manifest: Manifest, *, top_k: int
) -> Prediction:
    """The `top_k` most probable classes, ties by the manifest's order, and each used modality's opinion."""
    order = np.argsort(-outputs.probabilities, kind="stable")
    names = manifest.inputs.names
    by_modality = {
        name: _opinion(said, manifest)
        for name, said in zip(names, outputs.modality_probabilities, strict=True)
        if name in used
    }
    return Prediction(
        top=_ranked(outputs.probabilities, order[:top_k], manifest),
        labels=_holding(outputs.probabilities, manifest),
        used=used,
        missing=tuple(name for name in names if name not in used),
        by_modality=by_modality,
        prediction_set=_prediction_set(outputs, order, manifest),
        explanation=None
        if outputs.by_subset is None
        else explain(outputs.by_subset, order[0], used, manifest),
    )


def _opinion(probabilities: NDArray[np.float32], manifest: Manifest) -> Opinion:
    best = int(probabilities.argmax())
    return Opinion(manifest.labels[best], probabilities.item(best), _holding(probabilities, manifest))


def _holding(probabilities: NDArray[np.float32], manifest: Manifest) -> tuple[ClassProbability, ...] | None:
    """The labels that reach their thresholds; None where labels exclude each other."""
    if not manifest.is_multilabel:
        return None
    reached = probabilities >= np.array(manifest.label_thresholds, np.float32)
    order = np.argsort(-probabilities, kind="stable")
    return _ranked(probabilities, order[reached[order]], manifest)


def _prediction_set(outputs: RowOutputs, order: NDArray[np.intp], manifest: Manifest) -> PredictionSet | None:
    conformal = manifest.calibration.conformal
    if conformal is None:
        return None
    assert outputs.prediction_set is not None, "the predictor reads it where the manifest has sets"
    labels = manifest.labels
    chosen = tuple(labels[index] for index in order[outputs.prediction_set[order]].tolist())
    return PredictionSet(level=conformal.level, labels=chosen)


def _ranked(
    probabilities: NDArray[np.float32], order: NDArray[np.intp], manifest: Manifest
) -> tuple[ClassProbability, ...]:
    """These classes by name: numbers leave numpy all at once, for one at a time takes as long as a fusion."""
    labels = manifest.labels
    said = zip(order.tolist(), probabilities[order].tolist(), strict=True)
    return tuple(ClassProbability(labels[index], probability) for index, probability in said)
