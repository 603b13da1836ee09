"""Conformal sets inside a graph: training/calibrate/conformal.py in torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from app.bundle.manifest import MODALITIES, Modality
from training.calibrate.conformal import FLOOR, HALF, Method
from training.subsets import mask_number


class SetsOf(nn.Module):
    """Logits that were divided by their temperature to the set of classes that a person sees.

    `thresholds` [2 ** modalities]: one for each presence mask read as a binary number, as temperatures are
    kept. A row's sets come from its own logits and mask alone.
    """

    thresholds: Tensor

    def __init__(
        self, thresholds: Mapping[str, float], *, method: Method, modalities: Sequence[Modality] = MODALITIES
    ) -> None:
        """`thresholds` by subset name, as `Conformal.thresholds` gives them."""
        super().__init__()
        self.method = method
        numbers = torch.full((2 ** len(modalities),), math.inf)  # of no modality nothing is known
        for subset, threshold in thresholds.items():
            numbers[sum(2 ** modalities.index(_modality(name)) for name in subset.split("+"))] = threshold
        self.register_buffer("thresholds", numbers)

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Bool [rows, labels] from logits [rows, labels] and present bool [rows, modalities]."""
        wide = logits.float()
        below_top = (wide - wide.amax(dim=1, keepdim=True)).clamp(min=-FLOOR)
        scores = lac_scores(below_top) if self.method == "lac" else aps_scores(below_top)
        return (scores <= self.thresholds[mask_number(present)].unsqueeze(1)) | (below_top == 0)


def lac_scores(below_top: Tensor) -> Tensor:
    """log((1 - p) / p), from logits less the largest of their row."""
    odds, is_top = below_top.exp(), below_top == 0
    rest_of = torch.where(is_top, 0.0, odds)
    tops = is_top.float()
    others = rest_of.sum(dim=1, keepdim=True) + (tops.sum(dim=1, keepdim=True) - tops) - rest_of
    return others.log() - below_top


def aps_scores(below_top: Tensor) -> Tensor:
    """log(a / b), a what is above a class and half of its own. Compares each class with each."""
    odds, one, other = below_top.exp().unsqueeze(1), below_top.unsqueeze(2), below_top.unsqueeze(1)
    above = torch.where(other > one, odds, 0.0).sum(dim=2)
    tied = torch.where(other == one, odds, 0.0).sum(dim=2)
    below = torch.where(other < one, odds, 0.0).sum(dim=2)
    a, b, apart = above + HALF * tied, below + HALF * tied, above - below
    is_near = apart.abs() < b / 2
    return torch.where(is_near, torch.where(is_near, apart / b, 0.0).log1p(), a.log() - b.log())


def _modality(name: str) -> Modality:
    [found] = [modality for modality in MODALITIES if modality == name]
    return found
