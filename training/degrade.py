"""Inputs spoiled as a recipe's `Degradation` says, the same way for the same seed, each row's on its own."""

from __future__ import annotations

import numpy as np

from app.bundle.manifest import MODALITIES
from training.data.dataset import ABSENT, Rows
from training.data.items import Images, Items
from training.measure.robustness import damaged_texts, noisy_clips, noisy_images
from training.recipe import Degradation


def degraded(rows: Rows, items: Items, how: Degradation, *, seed: int) -> tuple[Rows, Items]:
    """Items that are in one row each, so that damage is drawn for every row, and rows that name them."""
    own, single = _apart(rows, items)
    return own, Items(
        images=_spoiled_images(single.images, how, seed=seed) if single.images else None,
        texts=damaged_texts(single.texts, rate=how.text_rate, seed=seed) if single.texts else None,
        clips=noisy_clips(single.clips, snr_db=how.audio_snr_db, seed=seed) if single.clips else None,
    )


def _apart(rows: Rows, items: Items) -> tuple[Rows, Items]:
    used = {name: rows.items[rows.present[:, at], at] for at, name in enumerate(MODALITIES)}
    numbers = np.full_like(rows.items, ABSENT)
    for at, name in enumerate(MODALITIES):
        numbers[rows.present[:, at], at] = np.arange(len(used[name]))
    own = Rows(items=numbers, targets=rows.targets, groups=rows.groups, columns=rows.columns)
    return own, Items(
        images=items.images.take(used["image"]) if items.images else None,
        texts=items.texts.take(used["text"]) if items.texts else None,
        clips=items.clips.take(used["audio"]) if items.clips else None,
    )


def _spoiled_images(images: Images, how: Degradation, *, seed: int) -> Images:
    """A black square somewhere, then Gaussian noise everywhere."""
    rng = np.random.default_rng(seed)
    rows, height, width, _ = images.pixels.shape
    side = how.image_square
    top = rng.integers(height - side + 1, size=(rows, 1, 1, 1))
    left = rng.integers(width - side + 1, size=(rows, 1, 1, 1))
    down, across = np.arange(height).reshape(1, -1, 1, 1), np.arange(width).reshape(1, 1, -1, 1)
    hidden = (down >= top) & (down < top + side) & (across >= left) & (across < left + side)
    blanked = Images(np.where(hidden, np.uint8(0), images.pixels))
    return noisy_images(blanked, deviation=how.image_noise, seed=seed)
