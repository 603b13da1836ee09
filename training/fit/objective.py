"""What a step minimises: the joint answer's loss, and that of what each present modality says alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from app.bundle.manifest import Task
from training.fit.draw import Draw
from training.fusion.contract import Fused
from training.recipe import Schedule


def loss_of(fused: Fused, draw: Draw, schedule: Schedule, task: Task, *, auxiliary_alone: bool) -> Tensor:
    """Weighted mean over the whole batch; a process that has a share of it gives its share of the mean.

    `auxiliary_alone` is for fusions that learn nothing by themselves and for the epochs of towers alone.
    """
    present = draw.batch.present
    each = _each(
        fused.modality_logits.float().flatten(0, 1),
        draw.targets.repeat_interleave(present.shape[1], dim=0),
        schedule,
        task,
    ).view(present.shape)
    alone = (torch.where(present, each, 0.0) * draw.weights.unsqueeze(1)).sum() / draw.heard
    if auxiliary_alone:
        return alone
    joint = (_each(fused.logits.float(), draw.targets, schedule, task) * draw.weights).sum() / draw.rows
    return joint + schedule.auxiliary_weight * alone


def _each(logits: Tensor, targets: Tensor, schedule: Schedule, task: Task) -> Tensor:
    """float32 [rows]; for several labels the mean over them."""
    smoothing = schedule.label_smoothing
    if task == "multilabel":
        wanted = targets.float() * (1 - smoothing) + smoothing / 2
        return nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
    return nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")


def mean_loss(logits: Tensor, targets: Tensor, task: Task) -> float:
    """Negative log likelihood in nats, of a label each where a row has several."""
    if task == "multilabel":
        return nn.functional.binary_cross_entropy_with_logits(logits, targets.float()).item()
    return nn.functional.cross_entropy(logits, targets).item()


@torch.no_grad()
def accuracy_of(logits: Tensor, targets: Tensor, task: Task) -> float:
    """Share of rows answered right, or of single labels where a row has several."""
    if task == "multilabel":
        return ((logits > 0) == (targets > 0)).float().mean().item()
    return (logits.argmax(dim=1) == targets).float().mean().item()
