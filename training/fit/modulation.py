"""On-the-fly gradient modulation: the modality that answers best alone learns more slowly for a step.

Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022 (OGM, without the
noise of its GE variant), for any number of modalities and by encoder, not by name. They scale gradients under
SGD, where that scales the update. AdamW divides a gradient by its own size, so here the update is scaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, distributed

from app.bundle.manifest import Modality
from training.fit.distributed import World
from training.fit.draw import Draw
from training.fusion.contract import Fused

MODALITY: Final = "modality"
"""In a parameter group: whose encoder it is of."""


@contextmanager
def slowed(optimiser: torch.optim.Optimizer, by: Mapping[Modality, float]) -> Iterator[None]:
    """Inside, a step moves each encoder by its factor of what it would."""
    usual = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] *= by.get(group[MODALITY], 1.0)
    yield
    for group, rate in zip(optimiser.param_groups, usual, strict=True):
        group["lr"] = rate


@torch.no_grad()
def factors(
    names: tuple[Modality, ...], fused: Fused, draw: Draw, *, strength: float, world: World
) -> dict[Modality, float]:
    """1 - tanh(strength * ratio) for whoever is ahead of the others' mean, else 1.

    The ratio is of the mean probabilities that the own heads give the true class.
    """
    said = torch.softmax(fused.modality_logits.float(), dim=2)
    right = said.gather(2, draw.targets.view(-1, 1, 1).expand(-1, said.shape[1], 1)).squeeze(2)
    present = draw.batch.present
    sums = torch.stack([torch.where(present, right, 0.0).sum(dim=0), present.sum(dim=0).float()])
    if world.size > 1:
        distributed.all_reduce(sums)
    scores = sums[0] / sums[1].clamp(min=1)
    return {name: _factor(scores, at, strength) for at, name in enumerate(names)}


def _factor(scores: Tensor, at: int, strength: float) -> float:
    others = torch.cat([scores[:at], scores[at + 1 :]])
    if len(others) == 0:
        return 1.0
    ratio = scores[at] / others.mean().clamp(min=1e-6)
    return float(1 - torch.tanh(strength * ratio)) if ratio > 1 else 1.0
