"""Temperatures by subset of modalities, fitted on validation rows.

Temperature scaling: Guo et al., On Calibration of Modern Neural Networks, ICML 2017. One number for all
subsets would leave those with few modalities far too sure of themselves.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from training.evaluate import Features
from training.model import SUBSETS, Model, mask_number, mask_of

_LOWEST, _HIGHEST = 0.05, 20.0
_STEPS: Final = 60  # each narrows the interval by 0.618: far below float32's own precision


def fit_temperatures(model: Model, features: Features, labels: Tensor) -> dict[str, float]:
    """Sets the model's temperatures; returns those of the subsets, as the manifest lists them."""
    found: dict[str, float] = {}
    with torch.inference_mode():
        for subset in SUBSETS:
            present = torch.tensor([mask_of(subset)]).expand(len(labels), -1)
            fused = model.fusion(features.each, present)
            found[subset] = fit_temperature(fused.logits, labels)
            model.temperatures[mask_number(present[:1])] = found[subset]
            if present[0].sum() == 1:
                alone = int(present[0].int().argmax())
                said = fit_temperature(fused.modality_logits[:, alone], labels)
                model.modality_temperatures[alone] = said
    return found


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The divisor with the least negative log likelihood, by golden-section search over its logarithm."""

    def loss(log_temperature: float) -> float:
        scaled = logits.double() / torch.tensor(log_temperature, dtype=torch.float64).exp()
        return nn.functional.cross_entropy(scaled, labels).item()

    low, high = (torch.tensor([_LOWEST, _HIGHEST], dtype=torch.float64).log()).tolist()
    ratio = (5**0.5 - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(torch.tensor((low + high) / 2, dtype=torch.float64).exp())
