"""Fusions that read every token of every modality.

`nn.TransformerEncoder` is not used: its fast path gives NaN for a row whose keys are all masked, and its
export may fix the batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.fusion.contract import Fused, FusionSpec, Shape
from training.fusion.joint import Joint, mean_of_present


class Block(nn.Module):
    """A transformer block with its norms before what they feed.

    Vaswani et al., Attention Is All You Need, 2017; the order: Xiong et al., On Layer Normalization in the
    Transformer Architecture, ICML 2020. Queries, keys and values have no bias: softmax would cancel that of
    the keys, which then would never be trained.
    """

    def __init__(self, width: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attend = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))
        self.feed = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """[rows, length, width] to the same. `visible` bool [rows, length]: which are read; all if None."""
        parts = self.project(self.norm_attend(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if visible is None else visible[:, None, None, :]
        seen = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.attended(seen.transpose(1, 2).flatten(2))
        fed: Tensor = x + self.feed(x)
        return fed


class _OfTokens(Joint):
    """Tokens go through the tower of their modality, and are told which place they have."""

    reads_tokens: ClassVar[bool] = True

    def forward(self, tokens: tuple[Tensor, ...], pooled: tuple[Tensor, ...], present: Tensor) -> Fused:
        _, said = self.alone(pooled, present)
        return self.read(self.mix(self.sequences(tokens, present), present), said)

    @abstractmethod
    def mix(self, each: list[Tensor], present: Tensor) -> Tensor:
        """f [rows, mixed], of a sequence [rows, K, width] for each modality."""

    def sequences(self, tokens: tuple[Tensor, ...], present: Tensor) -> list[Tensor]:
        """[rows, K, width] of each modality."""
        found = []
        for at, tower in enumerate(self.towers):
            own = tower(torch.where(present[:, at, None, None], tokens[at], 0.0))
            found.append(own + places(own.shape[1], own.shape[2], device=own.device))
        return found


class Attention(_OfTokens):
    """One transformer over the tokens of all modalities and a learned one, `cls`, in front.

    X = [cls; T_1; T_2; T_3] + place + type; f is what stands at `cls` after the last block. No token reads
    one of an absent modality. `cls` is read by all, so that no row is without something to read.
    """

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=spec.width)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, spec.width))
        self.types = nn.Parameter(0.02 * torch.randn(len(shape.widths), spec.width))
        self.blocks = nn.ModuleList(
            [Block(spec.width, heads=spec.heads, dropout=spec.dropout) for _ in range(spec.blocks)]
        )
        self.norm = nn.LayerNorm(spec.width)

    def mix(self, each: list[Tensor], present: Tensor) -> Tensor:
        cls = self.cls.expand(present.shape[0], -1, -1)
        x = torch.cat([cls, *(values + self.types[at] for at, values in enumerate(each))], dim=1)
        shown = [present[:, at : at + 1].expand(-1, values.shape[1]) for at, values in enumerate(each)]
        visible = torch.cat([torch.ones_like(present[:, :1]), *shown], dim=1)
        for block in self.blocks:
            x = block(x, visible)
        f: Tensor = self.norm(x[:, 0])
        return f


class Bottleneck(_OfTokens):
    """Nagrani et al., Attention Bottlenecks for Multimodal Fusion, NeurIPS 2021 (arXiv:2107.00135).

    Each modality has blocks of its own, over its `cls`, its tokens and a few shared vectors; after each block
    the shared vectors become the mean, over the present modalities, of what each made of them. Only through
    them do modalities exchange. f is the mean of the `cls` of the present. All blocks exchange: the layers
    before, where the paper's modalities are apart, are the encoders. The paper takes the mean after its
    classifier, which is linear; our head is not, and reads the mean.
    """

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__(spec, shape, mixed=spec.width)
        self.cls = nn.Parameter(0.02 * torch.randn(len(shape.widths), 1, spec.width))
        self.shared = nn.Parameter(0.02 * torch.randn(1, spec.bottlenecks, spec.width))
        self.blocks = nn.ModuleList(
            [
                Block(spec.width, heads=spec.heads, dropout=spec.dropout)
                for _ in range(spec.blocks)
                for _ in shape.widths
            ]
        )
        self.norm = nn.LayerNorm(spec.width)

    def mix(self, each: list[Tensor], present: Tensor) -> Tensor:
        rows = present.shape[0]
        each = [torch.cat([self.cls[at].expand(rows, -1, -1), x], dim=1) for at, x in enumerate(each)]
        shared = self.shared.expand(rows, -1, -1)
        for first in range(0, len(self.blocks), len(each)):
            layer = self.blocks[first : first + len(each)]
            both = [block(torch.cat([x, shared], dim=1)) for x, block in zip(each, layer, strict=True)]
            each = [values[:, : x.shape[1]] for values, x in zip(both, each, strict=True)]
            written = torch.stack(
                [values[:, x.shape[1] :] for values, x in zip(both, each, strict=True)], dim=1
            )
            shared = mean_of_present(written, present)
        return mean_of_present(self.norm(torch.stack([x[:, 0] for x in each], dim=1)), present)


def places(length: int, width: int, *, device: torch.device) -> Tensor:
    """Sines and cosines [length, width] of the place (Vaswani et al. 2017): nothing to learn, any length."""
    place = torch.arange(length, device=device, dtype=torch.float32).unsqueeze(1)
    feature = torch.arange(width, device=device, dtype=torch.float32)
    turn = place * torch.exp(-math.log(10_000) / width * (feature - feature % 2))
    return torch.where(feature % 2 == 0, torch.sin(turn), torch.cos(turn))
