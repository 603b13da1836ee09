"""What encoders fit in closed form, before the first step of gradient descent."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from app.bundle.manifest import MODALITIES
from training.batch import Stock
from training.data.dataset import ABSENT, Split
from training.fit.chance import seed_of
from training.model import Model

_ITEMS: Final = 256  # gathered at once


def study(model: Model, split: Split, stock: Stock, *, labels: int, seed: int) -> None:
    """Every item of the training rows that has a label, once, whatever the number of its rows.

    Raises EncoderUnfit.
    """
    rows = split.pairing.rows(seed_of(seed, "pairs", 0))
    for name in model.names:
        encoder = model.encoder(name)
        if not encoder.studies:
            continue
        column = rows.items[:, MODALITIES.index(name)]
        has_label = (rows.targets != ABSENT).all(axis=1) if rows.targets.ndim == 2 else rows.targets != ABSENT
        here = np.flatnonzero((column != ABSENT) & has_label)
        items, first = np.unique(column[here], return_index=True)
        targets = torch.from_numpy(rows.targets[here[first]])
        if model.task == "classification":
            targets = torch.nn.functional.one_hot(targets, labels)
        groups = torch.from_numpy(rows.groups[here[first], MODALITIES.index(name)])
        batches = [
            stock.gather(name, items[start : start + _ITEMS]) for start in range(0, len(items), _ITEMS)
        ]
        encoder.study(batches, targets, groups)
