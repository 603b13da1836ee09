"""Which modalities a training row keeps: what it brings, less what is dropped so that the rest must do."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_presence(brought: Tensor, *, drop: float, generator: torch.Generator) -> Tensor:
    """Bool [rows, modalities]: each that a row brought is dropped by its own chance, but never its last one.

    Rows that would lose everything are drawn again.
    """
    assert drop < 1, "every row keeps something"
    assert brought.any(dim=1).all(), "every row brings something"
    present = brought & (torch.rand(brought.shape, generator=generator) >= drop)
    while (gone := ~present.any(dim=1)).any():
        again = torch.rand((int(gone.sum()), brought.shape[1]), generator=generator) >= drop
        present[gone] = brought[gone] & again
    return present
