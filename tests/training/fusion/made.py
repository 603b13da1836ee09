"""Fusions and what encoders might say to them, as small as they can be with no two sizes alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from app.bundle.manifest import MODALITIES
from training.fusion.build import build_fusion
from training.fusion.contract import Fused, Fusion, FusionSpec, Level, Method, Task

WIDTHS = (5, 7, 6)
TOKENS = (3, 2, 4)
WIDTH = 8
LABELS = 4
SUBSETS = tuple(mask for mask in product((False, True), repeat=3) if any(mask))


def spec_of(level: Level, method: Method) -> FusionSpec:
    return FusionSpec(
        level=level,
        method=method,
        width=WIDTH,
        embedding=WIDTH if level == "prediction" else 10,
        rank=3,
        tensor_width=2,
        bottlenecks=2,
        heads=2,
    )


def make(
    level: Level,
    method: Method,
    *,
    task: Task = "classification",
    modalities: int = 3,
    blocks: int = 2,
    seed: int = 0,
) -> Fusion:
    """For evaluation. Of fewer modalities, the last: text and audio, or audio."""
    torch.manual_seed(seed)
    spec, names = replace(spec_of(level, method), blocks=blocks), MODALITIES[-modalities:]
    if spec.conditioner not in names:
        spec = replace(spec, conditioner=names[0])
    return build_fusion(spec, widths=WIDTHS[-modalities:], labels=LABELS, task=task, modalities=names).eval()


@dataclass(frozen=True, slots=True)
class Said:
    """What three encoders say of some rows."""

    tokens: tuple[Tensor, ...]
    pooled: tuple[Tensor, ...]

    @property
    def each(self) -> tuple[Tensor, ...]:
        return (*self.tokens, *self.pooled)

    def rows(self, chosen: Tensor) -> Said:
        return Said(tuple(x[chosen] for x in self.tokens), tuple(x[chosen] for x in self.pooled))

    def spoiled(self, present: Tensor, content: float) -> Said:
        """`content` in the place of all that is absent."""
        return Said(
            tuple(torch.where(present[:, at, None, None], x, content) for at, x in enumerate(self.tokens)),
            tuple(torch.where(present[:, at, None], x, content) for at, x in enumerate(self.pooled)),
        )


def say(rows: int, *, seed: int = 0, modalities: int = 3) -> Said:
    draw = torch.Generator().manual_seed(seed)
    sizes = list(zip(TOKENS, WIDTHS, strict=True))[-modalities:]
    return Said(
        tuple(torch.randn(rows, count, width, generator=draw) for count, width in sizes),
        tuple(torch.randn(rows, width, generator=draw) for _, width in sizes),
    )


def ask(fusion: Fusion, said: Said, present: Tensor) -> Fused:
    with torch.inference_mode():
        fused: Fused = fusion(said.tokens, said.pooled, present)
    return fused


def all_subsets(rows: int) -> Tensor:
    """Presence [rows, 3], the subsets one after the other."""
    return torch.tensor(SUBSETS).repeat(rows // len(SUBSETS) + 1, 1)[:rows]


def parts(fused: Fused) -> tuple[Tensor, Tensor, Tensor]:
    return fused.logits, fused.embedding, fused.modality_logits


def training_loss(fusion: Fusion, fused: Fused, present: Tensor, targets: Tensor) -> Tensor:
    """The joint answer's loss where there is one to train, and that of each present modality alone."""
    each = _losses(fused.modality_logits.flatten(0, 1), targets.repeat_interleave(present.shape[1], dim=0))
    loss = torch.where(present.flatten(), each, 0.0).sum() / present.sum()
    return loss + _losses(fused.logits, targets).mean() if fusion.is_joint else loss


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 1:
        return cross_entropy(logits, targets, reduction="none")
    return binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
