"""Fusions by products of the features of all modalities: every pair and every triple of them.

z is what a tower says. A 1 in front of it, [1; z], makes the products of fewer modalities part of the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.fusion.contract import FusionSpec, Shape
from training.fusion.joint import OfVectors


class LowRank(OfVectors):
    """Liu et al., Efficient Low-rank Multimodal Fusion with Modality-Specific Factors, ACL 2018
    (arXiv:1806.00064).

    f = b + sum over the ranks r of w_r * product over m of ([1; z_m] W_mr): what a linear layer makes of the
    tensor of all products, its weights being a sum of `rank` outer products. The factor of an absent modality
    is 1. Wants modality dropout in training: without it subsets fall apart.
    """

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=spec.width)
        inputs = spec.width + 1
        # So scaled, a factor, their product and f have a variance near 1.
        factors = torch.randn(len(shape.widths), spec.rank, inputs, spec.width) * inputs**-0.5
        self.factors = nn.Parameter(factors)
        self.rank_weights = nn.Parameter(torch.randn(spec.rank) * spec.rank**-0.5)
        self.bias = nn.Parameter(torch.zeros(spec.width))

    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        product = own.new_ones(1, 1, 1)
        for at, values in enumerate(with_one(own).unbind(dim=1)):
            factor = torch.einsum("bi,rio->bro", values, self.factors[at])
            product = product * torch.where(present[:, at, None, None], factor, 1.0)
        return torch.einsum("bro,r->bo", product, self.rank_weights) + self.bias


class TensorProduct(OfVectors):
    """Zadeh et al., Tensor Fusion Network for Multimodal Sentiment Analysis, EMNLP 2017 (arXiv:1707.07250).

    f = all products of one entry each of [1; k_1], [1; k_2], [1; k_3], the k_m being narrow projections of
    z_m. An absent modality is [1; 0], which leaves exactly the products of the others.
    """

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=(spec.tensor_width + 1) ** len(shape.widths))
        self.narrow = nn.ModuleList([nn.Linear(spec.width, spec.tensor_width) for _ in shape.widths])

    def mix(self, own: Tensor, present: Tensor) -> Tensor:
        narrowed = torch.stack([narrow(own[:, at]) for at, narrow in enumerate(self.narrow)], dim=1)
        first, *others = with_one(torch.where(present.unsqueeze(2), narrowed, 0.0)).unbind(dim=1)
        products = first
        for values in others:
            products = (products.unsqueeze(2) * values.unsqueeze(1)).flatten(1)
        return products


def with_one(values: Tensor) -> Tensor:
    """[..., width] to [..., 1 + width], a 1 in front."""
    return torch.cat([torch.ones_like(values[..., :1]), values], dim=-1)
