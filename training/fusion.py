"""Concatenation with a presence mask: any non-empty subset of the modalities in, one answer out.

Each modality is projected to the same width; where it is absent a learned vector stands in. `where`, never
multiplication: NaN times 0 is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Fused:
    """Raw scores, before any temperature."""

    logits: Tensor  # [rows, labels], from all modalities that are present
    embedding: Tensor  # [rows, embedding]
    modality_logits: Tensor  # [rows, modalities, labels], from each modality alone


class ConcatFusion(nn.Module):
    """Features of image, text and audio, `[rows, features]` each, and which are present, bool [rows, 3]."""

    def __init__(self, *, features: tuple[int, ...], joint: int, embedding: int, labels: int) -> None:
        super().__init__()
        self.features = features
        self.projections = nn.ModuleList([nn.Linear(width, joint) for width in features])
        self.norms = nn.ModuleList([nn.LayerNorm(joint) for _ in features])
        self.missing = nn.Parameter(0.02 * torch.randn(len(features), joint))
        self.heads = nn.ModuleList([nn.Linear(joint, labels) for _ in features])
        self.mix = nn.Sequential(nn.Linear(len(features) * joint, 2 * joint), nn.GELU(), nn.Dropout(0.1))
        self.embed = nn.Sequential(nn.Linear(2 * joint, embedding), nn.GELU())
        self.classify = nn.Linear(embedding, labels)

    def forward(self, features: tuple[Tensor, ...], present: Tensor) -> Fused:
        own = []
        for at, (project, norm) in enumerate(zip(self.projections, self.norms, strict=True)):
            here = present[:, at : at + 1]
            own.append(norm(project(torch.where(here, features[at], 0.0))))
        told = [torch.where(present[:, at : at + 1], z, self.missing[at]) for at, z in enumerate(own)]
        embedding = self.embed(self.mix(torch.cat(told, dim=1)))
        said = torch.stack([head(z) for head, z in zip(self.heads, own, strict=True)], dim=1)
        return Fused(logits=self.classify(embedding), embedding=embedding, modality_logits=said)
