"""Random changes of training inputs that leave their meaning alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.batch import Arrays
from training.recipe import AudioAugmentation, ImageAugmentation, TextAugmentation


def augment_images(images: Arrays, how: ImageAugmentation, generator: torch.Generator) -> Arrays:
    """uint8 [rows, height, width, channels], to the same shape."""
    (pixels,) = images
    rows, channels = len(pixels), pixels.shape[3]

    def between(low: float, high: float, *, each: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(rows, each, 1, 1, generator=generator)

    x = _moved(pixels.permute(0, 3, 1, 2).float() / 255, how, generator)
    x = torch.where(_square(x, generator) & (between(0, 1) < how.occlude), 0.0, x)
    strength = between(how.contrast, 1)
    x = x * strength + between(0, 1) * (1 - strength)
    x = x * between(1 - how.colour, 1 + how.colour, each=channels)
    x = torch.where(between(0, 1) < how.invert, 1 - x, x)
    x = x + torch.randn(x.shape, generator=generator) * between(0, how.noise)
    return ((x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1),)


def _moved(x: Tensor, how: ImageAugmentation, generator: torch.Generator) -> Tensor:
    """Turned, scaled, shifted, mirrored; beyond its edge an image goes on as at the edge."""
    rows = len(x)
    chance = 2 * torch.rand(rows, 4, generator=generator) - 1
    mirror = torch.where(torch.rand(rows, generator=generator) < how.flip, -1.0, 1.0)
    angle = chance[:, 0] * math.radians(how.degrees)
    zoom = 1 / (1 + chance[:, 1] * how.scale)
    shift = chance[:, 2:] * 2 * how.shift  # the grid spans -1 to 1
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    affine = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, shift[:, 0]], dim=1),
            torch.stack([sine * mirror, cosine, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = torch.nn.functional.affine_grid(affine, list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _square(x: Tensor, generator: torch.Generator) -> Tensor:
    """Bool [rows, 1, height, width]: a square of a quarter to a half of the side, somewhere."""
    rows, _, height, width = x.shape
    side = height * (0.25 + 0.25 * torch.rand(rows, 1, 1, 1, generator=generator))
    top, left = (torch.rand(rows, 1, 1, 1, generator=generator) * (size - side) for size in (height, width))
    down, across = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    return (down >= top) & (down < top + side) & (across >= left) & (across < left + side)


def augment_texts(texts: Arrays, how: TextAugmentation, generator: torch.Generator, *, pad_id: int) -> Arrays:
    """int32 [rows, tokens]: some tokens are read as padding, never all of a row."""
    (tokens,) = texts
    hidden = torch.rand(tokens.shape, generator=generator) < how.hide
    kept = tokens.masked_fill(hidden, pad_id)
    return (torch.where((kept != pad_id).any(dim=1, keepdim=True), kept, tokens),)


def augment_sounds(
    sounds: Arrays, how: AudioAugmentation, generator: torch.Generator, *, rate_hz: int
) -> Arrays:
    """float32 [rows, samples] and int32 [rows] lengths, to the same with rows of `window_s`.

    Each clip is faster or slower, somewhere in its row, louder or softer, perhaps in noise. Of a clip that
    is longer than the row a random part is heard.
    """
    samples, length = sounds
    rows, window = len(length), round(how.window_s * rate_hz)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, 1, generator=generator)

    speed = between(1 - how.speed, 1 + how.speed)
    duration = length.unsqueeze(1) / speed
    spare = window - duration
    start = between(0, 1) * spare  # a clip longer than the row starts before it
    ends = (start + duration + between(0, 1) * (spare - start)).clamp(max=window).where(spare > 0, window)
    clean = _interpolated(samples, length, (torch.arange(window) - start) * speed)
    noisy = clean + _noise(clean, samples, length, how, generator)
    noisy = noisy * 10 ** (between(-how.gain_db, how.gain_db) / 20)
    inside = torch.arange(window) < ends.round()
    return torch.where(inside, noisy.clamp(-1, 1), 0.0), ends.round().squeeze(1).to(torch.int32)


def _interpolated(samples: Tensor, length: Tensor, at: Tensor) -> Tensor:
    """Samples at fractional positions [rows, samples]; silence outside of the clip."""
    last = length.unsqueeze(1) - 1
    low = at.floor().clamp(min=0).minimum(last.float())
    high = (low + 1).minimum(last.float())
    below, above = samples.gather(1, low.long()), samples.gather(1, high.long())
    value = below + (above - below) * (at - low)
    return torch.where((at >= 0) & (at <= last), value, 0.0)


def _noise(
    clean: Tensor, samples: Tensor, length: Tensor, how: AudioAugmentation, generator: torch.Generator
) -> Tensor:
    rows = len(clean)
    low, high = how.snr_db
    snr_db = low + (high - low) * torch.rand(rows, 1, generator=generator)
    power = samples.square().sum(dim=1, keepdim=True) / length.unsqueeze(1)
    amplitude = (power / 10 ** (snr_db / 10)).sqrt()
    heard = torch.rand(rows, 1, generator=generator) < how.noise
    return torch.where(heard, amplitude * torch.randn(clean.shape, generator=generator), 0.0)
