"""Samples to a log-mel picture, as plain convolutions, so that it can live inside the audio graph.

torch.stft becomes ONNX STFT, which ONNX Runtime runs some thirty times slower than this.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

_SPAN: Final = 12.0  # natural log of power, below the loudest point; 52 dB
_FULL_SPAN: Final = 18.4  # below the loudest sine of full scale; 80 dB
_SILENCE: Final = -12.0  # log power of rounding noise in a 16-bit recording: no reference is below it


class LogMel(nn.Module):
    """[rows, samples] to [rows, bands, frames], 0 for silence.

    Where `is_relative`, 1 is the row's loudest point, so a quiet recording looks as a loud one; else 1 is
    a sine of full scale. Only frames whose whole window holds samples count, so silence that pads a batch
    is never looked at.
    """

    kernel: Tensor
    filters: Tensor

    def __init__(
        self,
        *,
        rate_hz: int,
        bands: int,
        window_s: float = 0.025,
        hop_s: float = 0.010,
        is_relative: bool = True,
    ) -> None:
        super().__init__()
        self.window = round(window_s * rate_hz)
        self.hop = round(hop_s * rate_hz)
        self.is_relative = is_relative
        size = 2 ** math.ceil(math.log2(self.window))
        self.register_buffer("kernel", _fourier_kernel(self.window, size), persistent=False)
        self.register_buffer("filters", _mel_filters(rate_hz, size, bands), persistent=False)

    def forward(self, audio: Tensor, audio_length: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the picture, 0 beyond a row's end, and which frames are valid: bool [rows, frames]."""
        with torch.autocast(audio.device.type, enabled=False):
            waves = nn.functional.conv1d(audio.float().unsqueeze(1), self.kernel, stride=self.hop)
            cosine, sine = waves.chunk(2, dim=1)
            power = torch.matmul(self.filters, cosine * cosine + sine * sine)
            # Not `+ 1e-10`: the exporter takes so little for nothing. Of silence it is -inf, and 0 below.
            loudness = torch.log(power)
        ends = torch.arange(loudness.shape[2], device=audio.device) * self.hop + self.window
        valid = ends.unsqueeze(0) <= audio_length.unsqueeze(1)
        if self.is_relative:
            heard = torch.where(valid.unsqueeze(1), loudness, _SILENCE)
            peak = heard.amax(dim=(1, 2), keepdim=True).clamp(min=_SILENCE)
            picture = ((heard - peak) / _SPAN + 1).clamp(min=0)
        else:
            # A sine of full scale has a quarter of the window as its magnitude: half for each sign of its
            # frequency, and half of that under the Hann window.
            picture = ((loudness - 2 * math.log(self.window / 4)) / _FULL_SPAN + 1).clamp(min=0)
        return torch.where(valid.unsqueeze(1), picture, 0.0), valid


def _fourier_kernel(window: int, size: int) -> Tensor:
    """Hann-windowed cosines, then sines: [2 * (size / 2 + 1), 1, window]."""
    time = torch.arange(window, dtype=torch.float64)
    turns = torch.outer(torch.arange(size // 2 + 1, dtype=torch.float64), time) * (2 * math.pi / size)
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64)
    return (torch.cat([turns.cos(), turns.sin()]) * hann).unsqueeze(1).float()


def _mel_filters(rate_hz: int, size: int, bands: int) -> Tensor:
    """Triangles of height 1, evenly spaced on the HTK mel scale from 60 Hz to the highest: [bands, bins]."""
    top = rate_hz / 2
    edges_mel = torch.linspace(_mel(60.0), _mel(top), bands + 2, dtype=torch.float64)
    edges_hz = 700 * (torch.pow(10.0, edges_mel / 2595) - 1)
    bins_hz = torch.linspace(0, top, size // 2 + 1, dtype=torch.float64)
    low, centre, high = (edges_hz[i : i + bands].unsqueeze(1) for i in range(3))
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    nearest = (bins_hz - centre).abs().argmin(dim=1)  # a triangle between two bins still hears one of them
    filters[torch.arange(bands), nearest] = filters[torch.arange(bands), nearest].clamp(min=0.5)
    return filters.float()


def _mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)
