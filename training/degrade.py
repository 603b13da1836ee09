"""Inputs spoiled as a recipe's `Degradation` says, the same way for the same seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.data.misspellings import garble
from training.recipe import Degradation
from training.rows import Sounds


def degrade_images(grey: Tensor, how: Degradation, *, seed: int) -> Tensor:
    """uint8 [rows, height, width]: a black square somewhere, then Gaussian noise everywhere."""
    generator = torch.Generator().manual_seed(seed)
    rows, height, width = grey.shape
    side = how.image_square
    top = torch.randint(height - side + 1, (rows, 1, 1), generator=generator)
    left = torch.randint(width - side + 1, (rows, 1, 1), generator=generator)
    down, across = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    hidden = (down >= top) & (down < top + side) & (across >= left) & (across < left + side)
    x = torch.where(hidden, 0.0, grey.float() / 255)
    x = x + how.image_noise * torch.randn(x.shape, generator=generator)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def degrade_sounds(sounds: Sounds, how: Degradation, *, seed: int) -> Sounds:
    """White noise at the stated ratio to each clip's own power."""
    generator = torch.Generator().manual_seed(seed)
    power = sounds.samples.square().sum(dim=1, keepdim=True) / sounds.length.unsqueeze(1)
    amplitude = (power / 10 ** (how.audio_snr_db / 10)).sqrt()
    noisy = sounds.samples + amplitude * torch.randn(sounds.samples.shape, generator=generator)
    inside = torch.arange(noisy.shape[1]) < sounds.length.unsqueeze(1)
    return Sounds(samples=torch.where(inside, noisy.clamp(-1, 1), 0.0), length=sounds.length)


def degrade_texts(strings: tuple[str, ...], how: Degradation, *, seed: int) -> tuple[str, ...]:
    """Characters dropped, doubled, swapped or replaced at the stated rate."""
    rng = np.random.default_rng(seed)
    return tuple(garble(text, rate=how.text_rate, rng=rng) for text in strings)
