"""Random changes of training inputs that leave their meaning alone. Texts get theirs when they are drawn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.recipe import AudioAugmentation, ImageAugmentation
from training.rows import Sounds


def augment_images(grey: Tensor, how: ImageAugmentation, generator: torch.Generator) -> Tensor:
    """uint8 [rows, height, width] of light strokes on black, to the same shape in either polarity."""
    rows = len(grey)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, 1, 1, generator=generator)

    x = _moved(grey.float() / 255, how, generator)
    x = torch.where(_square(x, generator) & (between(0, 1) < how.occlude), 0.0, x)
    strength = between(how.contrast, 1)
    x = x * strength + between(0, 1) * (1 - strength)
    x = torch.where(between(0, 1) < how.invert, 1 - x, x)
    x = x + torch.randn(x.shape, generator=generator) * between(0, how.noise)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def _moved(x: Tensor, how: ImageAugmentation, generator: torch.Generator) -> Tensor:
    """Turned, scaled, shifted; what comes into view is black."""
    rows = len(x)
    chance = 2 * torch.rand(rows, 4, generator=generator) - 1
    angle = chance[:, 0] * math.radians(how.degrees)
    zoom = 1 / (1 + chance[:, 1] * how.scale)
    shift = chance[:, 2:] * 2 * how.shift  # the grid spans -1 to 1
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    affine = torch.stack(
        [torch.stack([cosine, -sine, shift[:, 0]], dim=1), torch.stack([sine, cosine, shift[:, 1]], dim=1)],
        dim=1,
    )
    grid = torch.nn.functional.affine_grid(affine, [rows, 1, *x.shape[1:]], align_corners=False)
    return torch.nn.functional.grid_sample(x.unsqueeze(1), grid, align_corners=False).squeeze(1)


def _square(x: Tensor, generator: torch.Generator) -> Tensor:
    """Bool like `x`: a square of a quarter to a half of the side, somewhere."""
    rows, height, width = x.shape
    side = height * (0.25 + 0.25 * torch.rand(rows, 1, 1, generator=generator))
    top, left = (torch.rand(rows, 1, 1, generator=generator) * (size - side) for size in (height, width))
    down, across = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    return (down >= top) & (down < top + side) & (across >= left) & (across < left + side)


def augment_sounds(
    sounds: Sounds, how: AudioAugmentation, generator: torch.Generator, *, rate_hz: int
) -> Sounds:
    """Each clip faster or slower, somewhere in a longer row, louder or softer, perhaps in noise."""
    rows, window = len(sounds.length), round(how.window_s * rate_hz)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, 1, generator=generator)

    speed = between(1 - how.speed, 1 + how.speed)
    duration = sounds.length.unsqueeze(1) / speed
    spare = window - duration
    start = between(0, 1) * spare  # a clip longer than the row starts before it
    length = (start + duration + between(0, 1) * (spare - start)).clamp(max=window).where(spare > 0, window)
    clean = _interpolated(sounds, (torch.arange(window) - start) * speed)
    noisy = clean + _noise(clean, sounds, how, generator)
    noisy = noisy * 10 ** (between(-how.gain_db, how.gain_db) / 20)
    inside = torch.arange(window) < length.round()
    return Sounds(
        samples=torch.where(inside, noisy.clamp(-1, 1), 0.0), length=length.round().squeeze(1).to(torch.int32)
    )


def _interpolated(sounds: Sounds, at: Tensor) -> Tensor:
    """Samples at fractional positions [rows, samples]; silence outside of the clip."""
    last = sounds.length.unsqueeze(1) - 1
    low = at.floor().clamp(min=0).minimum(last.float())
    high = (low + 1).minimum(last.float())
    below, above = sounds.samples.gather(1, low.long()), sounds.samples.gather(1, high.long())
    value = below + (above - below) * (at - low)
    return torch.where((at >= 0) & (at <= last), value, 0.0)


def _noise(clean: Tensor, sounds: Sounds, how: AudioAugmentation, generator: torch.Generator) -> Tensor:
    rows = len(clean)
    low, high = how.snr_db
    snr_db = low + (high - low) * torch.rand(rows, 1, generator=generator)
    power = sounds.samples.square().sum(dim=1, keepdim=True) / sounds.length.unsqueeze(1)
    amplitude = (power / 10 ** (snr_db / 10)).sqrt()
    heard = torch.rand(rows, 1, generator=generator) < how.noise
    return torch.where(heard, amplitude * torch.randn(clean.shape, generator=generator), 0.0)
