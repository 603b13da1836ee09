"""What the fusions at feature and model level have in common: they mix, and a head reads the mixture."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from training.fusion.contract import Fused, Fusion, FusionSpec, Shape


class Joint(Fusion):
    """The subclass mixes to f [rows, mixed]; the head makes the embedding of f, and the logits of that."""

    def __init__(self, spec: FusionSpec, shape: Shape, *, mixed: int) -> None:
        super().__init__(spec, shape)
        self.head = nn.Sequential(
            nn.Linear(mixed, 2 * spec.width),
            nn.GELU(),
            nn.Dropout(spec.dropout),
            nn.Linear(2 * spec.width, spec.embedding),
            nn.GELU(),
        )
        self.classify = nn.Linear(spec.embedding, shape.labels)

    def read(self, f: Tensor, modality_logits: Tensor) -> Fused:
        embedding = self.head(f)
        return Fused(self.classify(embedding), embedding, modality_logits)


class OfVectors(Joint):
    """Mixes one vector a modality."""

    def forward(
        self,
        tokens: tuple[Tensor, ...],  # noqa: ARG002
        pooled: tuple[Tensor, ...],
        present: Tensor,
    ) -> Fused:
        own, said = self.alone(pooled, present)
        return self.read(self.mix(own, present), said)

    @abstractmethod
    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        """f [rows, mixed] of what the towers say, `own` [rows, modalities, width]."""


def missing_vectors(modalities: int, width: int) -> nn.Parameter:
    """What is learned to stand where a modality is absent: [modalities, width]."""
    return nn.Parameter(0.02 * torch.randn(modalities, width))


def sum_of_present(values: Tensor, present: Tensor) -> Tensor:
    """[rows, modalities, ...] to [rows, ...]."""
    return torch.where(_like(present, values), values, 0.0).sum(dim=1)


def mean_of_present(values: Tensor, present: Tensor) -> Tensor:
    """[rows, modalities, ...] to [rows, ...]."""
    return sum_of_present(values, present) / _like(present, values).sum(dim=1)


def _like(present: Tensor, values: Tensor) -> Tensor:
    """[rows, modalities] to [rows, modalities, 1, ...], as many dimensions as the values have."""
    return present[(..., *[None] * (values.ndim - 2))]
