"""On-the-fly gradient modulation: the modality that answers best alone learns more slowly for a step.

Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022 (OGM, without the
noise of its GE variant), for any number of modalities and by encoder, not by name.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from training.fit.distributed import World
from training.fit.draw import Draw
from training.fusion.contract import Fused
from training.model import Model


@torch.no_grad()
def slow_the_dominant(model: Model, fused: Fused, draw: Draw, *, strength: float, world: World) -> None:
    """Scale each encoder's gradient by 1 - tanh(strength * ratio) where it is ahead of the others' mean."""
    for name, factor in zip(model.names, factors(fused, draw, strength=strength, world=world), strict=True):
        for parameter in model.encoders[name].parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)


def factors(fused: Fused, draw: Draw, *, strength: float, world: World) -> list[float]:
    """One for each modality, in 0..1, by the mean probability that its own head gives the true class."""
    said = torch.softmax(fused.modality_logits.float(), dim=2)
    right = said.gather(2, draw.targets.view(-1, 1, 1).expand(-1, said.shape[1], 1)).squeeze(2)
    present = draw.batch.present
    sums = torch.stack([torch.where(present, right, 0.0).sum(dim=0), present.sum(dim=0).float()])
    if world.size > 1:
        distributed.all_reduce(sums)
    scores = sums[0] / sums[1].clamp(min=1)
    return [_factor(scores, at, strength) for at in range(len(scores))]


def _factor(scores: Tensor, at: int, strength: float) -> float:
    others = torch.cat([scores[:at], scores[at + 1 :]])
    if len(others) == 0:
        return 1.0
    ratio = scores[at] / others.mean().clamp(min=1e-6)
    return float(1 - torch.tanh(strength * ratio)) if ratio > 1 else 1.0
