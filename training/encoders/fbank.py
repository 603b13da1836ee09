"""Kaldi's filterbank as one convolution, so that it can live inside the graph of a model trained on it."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

_WINDOW_S: Final = 0.025
_HOP_S: Final = 0.010
_PREEMPHASIS: Final = 0.97
_LOWEST_HZ: Final = 20.0
_FLOOR: Final = 1.192092955078125e-07  # of power: what a 32-bit float can tell from 1


class KaldiFbank(nn.Module):
    """[rows, samples] in -1..1, not 16-bit numbers, to natural log of mel power, [rows, frames, bands].

    A frame's mean is taken away, then 0.97 of the sample before each, then comes a symmetric Hann window and
    a Fourier transform: all of it linear, hence one kernel. Triangles are straight on Kaldi's mel scale.
    """

    kernel: Tensor
    filters: Tensor

    def __init__(self, *, rate_hz: int, bands: int) -> None:
        super().__init__()
        self.window, self.hop = round(_WINDOW_S * rate_hz), round(_HOP_S * rate_hz)
        size = 2 ** math.ceil(math.log2(self.window))
        self.register_buffer("kernel", _kernel(self.window, size), persistent=False)
        self.register_buffer("filters", _filters(rate_hz, size, bands), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        with torch.autocast(audio.device.type, enabled=False):
            waves = nn.functional.conv1d(audio.float().unsqueeze(1), self.kernel, stride=self.hop)
            cosine, sine = waves.transpose(1, 2).chunk(2, dim=2)
            power = torch.matmul(cosine * cosine + sine * sine, self.filters)
            return torch.log(power.clamp(min=_FLOOR))

    def frames(self, samples: Tensor) -> Tensor:
        """How many windows lie wholly inside so many samples."""
        inside = torch.div(samples.long() - self.window, self.hop, rounding_mode="floor") + 1
        return inside.clamp(min=0)


def _kernel(window: int, size: int) -> Tensor:
    """[2 * (size / 2 + 1), 1, window]: cosines, then sines, of what the steps before them make of a frame."""
    without_mean = torch.eye(window, dtype=torch.float64) - 1 / window
    emphasis = torch.eye(window, dtype=torch.float64)
    emphasis[0, 0] -= _PREEMPHASIS  # Kaldi: the first sample is its own predecessor
    emphasis -= _PREEMPHASIS * torch.diag(torch.ones(window - 1, dtype=torch.float64), diagonal=-1)
    hann = torch.hann_window(window, periodic=False, dtype=torch.float64)
    time = torch.arange(window, dtype=torch.float64)
    turns = torch.outer(torch.arange(size // 2 + 1, dtype=torch.float64), time) * (2 * math.pi / size)
    waves = torch.cat([turns.cos(), turns.sin()])
    return ((waves * hann) @ emphasis @ without_mean).unsqueeze(1).float()


def _filters(rate_hz: int, size: int, bands: int) -> Tensor:
    """[bins, bands]: triangles of height 1, evenly spaced from 20 Hz to the highest."""
    bins = _mel(torch.arange(size // 2 + 1, dtype=torch.float64) * rate_hz / size).unsqueeze(1)
    ends = _mel(torch.tensor([_LOWEST_HZ, rate_hz / 2], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0).float()


def _mel(hz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hz / 700)
