from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.bundle.manifest import MODALITIES
from tests.training.tiny_xor import tiny_xor_that_keeps_pictures
from training.batch import Stock
from training.data.dataset import ABSENT, FixedRows, Rows, Split
from training.data.items import Images, Items
from training.encoders.kernel_image import KernelImageEncoder
from training.fit.study import study
from training.model import Model

# Picture, class and group of each row: the first picture is in three rows, the fourth has no class.
ROWS: Final = np.array(
    [[0, 1, 5], [0, 1, 5], [ABSENT, 2, 9], [2, 3, 7], [1, 0, 5], [3, ABSENT, 8], [0, 1, 5]]
)


def studied(rows: NDArray[np.int64]) -> KernelImageEncoder:
    made = tiny_xor_that_keeps_pictures()
    assert made.inputs.image is not None
    size = (4, made.inputs.image.height, made.inputs.image.width, 1)
    items = Items(images=Images(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)))
    numbers = np.full((len(rows), len(MODALITIES)), ABSENT)
    numbers[:, 0] = rows[:, 0]
    groups = np.tile(rows[:, 2:], len(MODALITIES))
    pairing = FixedRows(Rows(items=numbers, targets=rows[:, 1], groups=groups))
    torch.manual_seed(0)
    model = Model(made, vocabulary=300)
    study(model, Split(items, pairing), Stock(items, made.inputs, None), labels=len(made.labels), seed=0)
    encoder = model.encoder("image")
    assert isinstance(encoder, KernelImageEncoder)
    return encoder


def test_every_item_with_a_class_is_studied_once() -> None:
    encoder = studied(ROWS)
    assert len(encoder.keys) == len(set(encoder.keys.tolist())) == 3
    expected = torch.zeros(len(tiny_xor_that_keeps_pictures().labels))
    expected[[0, 1, 3]] = 1 / 3  # of items, not of rows
    torch.testing.assert_close(encoder.offset, expected)


def test_how_often_an_item_is_in_rows_does_not_matter() -> None:
    whole, once = studied(ROWS), studied(ROWS[[0, 3, 4]])
    torch.testing.assert_close(whole.state_dict(), once.state_dict())


def test_items_of_one_group_are_left_out_together() -> None:
    together = studied(ROWS)
    apart = studied(np.where((ROWS[:, :1] == 1) & (np.arange(3) == 2), 6, ROWS))
    torch.testing.assert_close(together.weights, apart.weights)
    moved = (together.left_out - apart.left_out).abs().amax(dim=1) > 1e-4
    assert moved.tolist() == [True, True, False]
