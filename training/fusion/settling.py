"""Fits a few numbers of a fusion to held-out answers: subsets of each row, in double precision on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from app.bundle.manifest import Task

_MOST_NUMBERS: Final = 2**26  # that are fitted on, 8 bytes each: 512 MiB
_MOST_STEPS: Final = 200


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Each row once for every subset of what it has."""

    heard: Tensor  # double [cases, modalities, labels], 0 where absent
    present: Tensor  # bool [cases, modalities]
    targets: Tensor  # int64 [cases], or double [cases, labels]
    rows: int  # that are independent of each other


def every_subset(
    modality_logits: Tensor,
    available: Tensor,
    targets: Tensor,
    *,
    sizes: range,
    seed: int,
    most: int = _MOST_NUMBERS,
) -> HeldOut:
    """Subsets of these sizes. Where they would hold more than `most` numbers, rows are drawn by the seed."""
    modality_logits, available, targets = (
        values.detach().cpu() for values in (modality_logits, available, targets)
    )
    count = available.shape[1]
    masks = torch.tensor([[bool(number >> at & 1) for at in range(count)] for number in range(2**count)])
    masks = masks[[int(size) in sizes for size in masks.sum(dim=1)]]
    rows = max(1, most // (len(masks) * modality_logits[0].numel()))
    if len(targets) > rows:
        chosen = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))[:rows]
        modality_logits, available, targets = modality_logits[chosen], available[chosen], targets[chosen]
    at_mask, at_row = (available | ~masks.unsqueeze(1)).all(dim=2).nonzero().unbind(dim=1)
    assert len(at_row), "there are held-out rows, and they have modalities"
    present = masks[at_mask]
    heard = torch.where(present.unsqueeze(2), modality_logits[at_row], 0.0).double()
    wanted = targets[at_row] if targets.ndim == 1 else targets[at_row].double()
    return HeldOut(heard, present, wanted, rows=len(targets))


def negative_log_likelihood(logits: Tensor, targets: Tensor, *, task: Task) -> Tensor:
    """Of a row, on average; of all its labels together where it has several."""
    if task == "classification":
        return cross_entropy(logits, targets)
    return binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1).mean()


def fitted(loss: Callable[[Tensor], Tensor], start: Tensor, *, rows: int) -> Tensor:
    """The numbers with the least loss a row, drawn towards `start` as by a Gaussian prior of variance 1.

    Where every held-out row is right the likelihood alone has no end: surer is always better.
    """
    origin = start.double()
    numbers = origin.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [numbers], max_iter=_MOST_STEPS, tolerance_grad=1e-8, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        optimiser.zero_grad()
        value = loss(numbers) + (numbers - origin).square().sum() / (2 * rows)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimiser.step(step)  # type: ignore[no-untyped-call]
    return numbers.detach()


def log_prior(targets: Tensor, *, labels: int, task: Task) -> Tensor:
    """Log share of each class, or log odds of each label: [labels]. Each was seen once more than it was."""
    if task == "classification":
        seen = torch.bincount(targets.flatten(), minlength=labels).double() + 1
        return (seen / seen.sum()).log()
    yes = targets.double().sum(dim=0) + 1
    return yes.log() - (len(targets) + 2 - yes).log()
