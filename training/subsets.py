"""Subsets of modalities as names, masks and numbers."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from app.bundle.manifest import MODALITIES, Modality, subset_name, subsets

SUBSETS: Final = subsets(MODALITIES)


def mask_number(present: Tensor) -> Tensor:
    """Bool [rows, modalities] read as binary numbers, the first modality lowest: int64 [rows]."""
    bits = 2 ** torch.arange(present.shape[1], device=present.device)
    return torch.where(present, bits, 0).sum(dim=1)


def mask_of(subset: str, names: tuple[Modality, ...] = MODALITIES) -> tuple[bool, ...]:
    """`'image+audio'` -> `(True, False, True)`."""
    chosen = subset.split("+")
    assert subset_name(tuple(name for name in names if name in chosen)) == subset, f"no subset {subset}"
    return tuple(name in chosen for name in names)


def modalities_of(subset: str) -> tuple[Modality, ...]:
    return tuple(name for name in MODALITIES if name in subset.split("+"))
