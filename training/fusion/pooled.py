"""Fusions of one vector a modality, by concatenation, by arithmetic, by gates.

z is what a tower says, r whether its modality is present. Not here: products of all pairs and triples
(tensors.py), and fusions that read tokens (attention.py).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from training.fusion.contract import FusionSpec, Shape
from training.fusion.joint import OfVectors, mean_of_present, missing_vectors, sum_of_present

_SHUT: Final = -1e4  # a gate's logit: e ** -1e4 is 0 in float32, and no infinity that a subtraction makes NaN


class Concat(OfVectors):
    """f = [z_1; z_2; z_3], a learned vector in the place of an absent one."""

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=len(shape.widths) * spec.width)
        self.missing = missing_vectors(len(shape.widths), spec.width)

    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        return torch.where(present.unsqueeze(2), own, self.missing).flatten(1)


class Multiply(OfVectors):
    """f = product of 1 + tanh(A_m z_m), an absent factor being 1, which is exact.

    Not the bare product of z: where one factor is near 0 it would give the others no gradient.
    """

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=spec.width)
        self.factors = nn.ModuleList([nn.Linear(spec.width, spec.width) for _ in shape.widths])

    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        product = torch.ones_like(own[:, 0])
        for at, factor in enumerate(self.factors):
            product = product * torch.where(present[:, at : at + 1], 1 + torch.tanh(factor(own[:, at])), 1.0)
        return product


class Sum(OfVectors):
    """f = LayerNorm(sum of z over the present): a sum grows with their number, the norm evens that out."""

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=spec.width)
        self.norm = nn.LayerNorm(spec.width)

    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        normed: Tensor = self.norm(sum_of_present(own, present))
        return normed


class Mean(OfVectors):
    """f = mean of z over the present. Shorter the less they agree, which a norm would hide."""

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=spec.width)

    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        return mean_of_present(own, present)


class Gated(OfVectors):
    """Gated multimodal units: Arevalo et al., Gated Multimodal Units for Information Fusion, 2017
    (arXiv:1702.01992), in the form for several modalities.

    f = sum of g_m * tanh(W_m z_m), the gates g_m computed from all modalities, a learned vector in the place
    of an absent one. For every feature the gates of the present are a softmax, so that they add up to 1
    whatever is absent, where the paper has sigmoids and nothing is ever missing.
    """

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=spec.width)
        count = len(shape.widths)
        self.missing = missing_vectors(count, spec.width)
        self.values = nn.ModuleList([nn.Linear(spec.width, spec.width) for _ in range(count)])
        self.gate = nn.Linear(count * spec.width, count * spec.width)

    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        here = present.unsqueeze(2)
        told = torch.where(here, own, self.missing)
        values = torch.stack([torch.tanh(value(told[:, at])) for at, value in enumerate(self.values)], dim=1)
        wanted = self.gate(told.flatten(1)).unflatten(1, told.shape[1:])
        gates = torch.softmax(torch.where(here, wanted, _SHUT), dim=1)
        return (gates * values).sum(dim=1)


class Film(OfVectors):
    """Feature-wise modulation: Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, AAAI
    2018 (arXiv:1709.07871).

    f = sum over the present others of (1 + scale_m) * z_m + shift_m, scale and shift being linear in the
    conditioner's z, or in a learned vector where it is absent. That sum is empty where the conditioner is
    alone: there f is the conditioner's z, else the answer would be the same for every row.
    """

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=spec.width)
        if spec.conditioner not in shape.modalities:
            raise ValueError(
                f"no modality '{spec.conditioner}' to condition on. There are: {', '.join(shape.modalities)}."
            )
        self.conditioner = shape.modalities.index(spec.conditioner)
        self.others = [at for at in range(len(shape.widths)) if at != self.conditioner]
        self.missing = missing_vectors(1, spec.width)
        self.modulate = nn.ModuleList([nn.Linear(spec.width, 2 * spec.width) for _ in self.others])

    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        its_own = own[:, self.conditioner]
        condition = torch.where(present[:, self.conditioner : self.conditioner + 1], its_own, self.missing)
        total, alone = torch.zeros_like(its_own), torch.ones_like(present[:, :1])
        for at, modulate in zip(self.others, self.modulate, strict=True):
            here = present[:, at : at + 1]
            scale, shift = modulate(condition).chunk(2, dim=1)
            total = total + torch.where(here, (1 + scale) * own[:, at] + shift, 0.0)
            alone = alone & ~here
        return torch.where(alone, its_own, total)
