"""What frozen encoders see of the items, asked once a run instead of once an epoch.

A frozen backbone is most of the work of a fit, and says the same of an item in every epoch. What an
augmentation changes it has not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import torch

from app.bundle.manifest import Modality
from training.batch import Stock
from training.model import Model

_ITEMS: Final = 64  # at once
_MOST_BYTES: Final = 2 * 2**30  # of one modality; what would take more is seen again in every epoch


@torch.no_grad()
def keep_constants(
    model: Model, stock: Stock, counts: Mapping[Modality, int], *, changed: Collection[Modality] = ()
) -> None:
    """Let the stock hold what the model's constant encoders see, but for modalities that are `changed`."""
    for name in model.names:
        if not model.encoder(name).is_constant or name in changed or stock.is_seen(name) or not counts[name]:
            continue
        if _see(model, stock, name, 0, 1).nbytes * counts[name] <= _MOST_BYTES:
            seen = [
                _see(model, stock, name, start, min(start + _ITEMS, counts[name]))
                for start in range(0, counts[name], _ITEMS)
            ]
            stock.keep(name, torch.cat(seen))


def _see(model: Model, stock: Stock, name: Modality, first: int, end: int) -> torch.Tensor:
    inputs = stock.gather(name, np.arange(first, end))
    return model.encoder(name).see(*(values.to(model.device) for values in inputs)).float().cpu()
