from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from benchmarks.imbalance import probe
from tests.training.tiny_xor import tiny_xor
from training.data.dataset import ABSENT, Dataset, FixedRows, Rows, Split
from training.data.items import Items
from training.encodings import Encodings
from training.model import Model


@dataclass(frozen=True)
class Half:
    """A split whose pictures say the class, and their features."""

    split: Split
    features: torch.Tensor


def half(rng: np.random.Generator, *, blind: int) -> Half:
    """200 rows with a picture, the last of class 0, and then `blind` rows without, of class 1."""
    targets = np.concatenate([rng.permutation(200) % 2, np.ones(blind, np.int64)])
    targets[199] = 0
    items = np.full((200 + blind, 3), ABSENT, np.int64)
    items[:200, 0] = np.arange(200)
    items[:, 1] = np.arange(200 + blind)
    features = torch.from_numpy(targets[:200, None] + rng.normal(0, 0.3, (200, 2))).float()
    return Half(Split(Items(), FixedRows(Rows(items, targets, items.copy()))), features)


@pytest.mark.parametrize(("blind_train", "blind_test"), [(0, 0), (1_000, 0), (0, 1_000)])
def test_a_probe_reads_the_rows_that_bring_its_modality(blind_train: int, blind_test: int) -> None:
    rng = np.random.default_rng(0)
    train, test = half(rng, blind=blind_train), half(rng, blind=blind_test)
    model = Model(tiny_xor(), vocabulary=20)
    encoded = {
        "train": Encodings(model, {"image": train.features}),
        "test": Encodings(model, {"image": test.features}),
    }
    dataset = Dataset(train=train.split, validation=test.split, test=test.split, provenance={})
    assert probe(encoded, dataset, "image", seed=0) > 0.95
