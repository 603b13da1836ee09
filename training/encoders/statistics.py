"""Recordings by the statistics of their spectrogram, then one dense layer: for sets of few speakers.

A network that sees frames learns by heart who says what; moments over time leave how it sounds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from app.bundle.manifest import AudioInput
from training.encoders.contract import Encoded, Encoder
from training.encoders.norm import BatchNorm1d
from training.encoders.readout import masked_mean, masked_peak, regions
from training.encoders.specs import StatisticAudio
from training.encoders.spectrogram import LogMel


class StatisticAudioEncoder(Encoder):
    """Duration; of each band mean, deviation and change over time, and mean and peak of parts of the row."""

    def __init__(self, spec: StatisticAudio, audio: AudioInput) -> None:
        super().__init__(width=spec.width, tokens=1)
        self.parts, self.rate_hz = spec.parts, audio.sample_rate
        self.picture = LogMel(rate_hz=audio.sample_rate, bands=spec.bands, hop_s=spec.hop_s)
        places = 1 + spec.parts if spec.parts > 1 else 1  # the whole, and its parts where it has several
        found = 1 + spec.bands * (2 * places + 2)
        self.even = BatchNorm1d(found, eps=1e-3)
        self.out = nn.Sequential(
            nn.Dropout(spec.hide),
            nn.Linear(found, spec.width),
            BatchNorm1d(spec.width),
            nn.GELU(),
            nn.Dropout(spec.dropout),
        )

    def forward(self, audio: Tensor, audio_length: Tensor) -> Encoded:
        with torch.autocast(audio.device.type, enabled=False), torch.no_grad():
            found = statistics(self.picture, audio, audio_length, parts=self.parts, rate_hz=self.rate_hz)
        said = self.out(self.even(found))
        return Encoded(tokens=said.unsqueeze(1), pooled=said)


def statistics(picture: LogMel, audio: Tensor, audio_length: Tensor, *, parts: int, rate_hz: int) -> Tensor:
    """[rows, statistics]: one of duration, then of each kind as many as there are bands."""
    frames, valid = picture(audio, audio_length)
    x = frames.transpose(1, 2)
    chosen = regions(valid, parts)
    means, whole = masked_mean(x, chosen), chosen[:, :1]
    spread = masked_mean(x.square(), whole) - means[:, :1].square()
    # A change is between two frames of the row; its frame is the later one.
    both = (valid[:, 1:] & valid[:, :-1]).unsqueeze(1)
    change = masked_mean((x[:, 1:] - x[:, :-1]).square(), both)
    told = torch.cat([means, masked_peak(x, chosen), _root(spread), _root(change)], dim=1)
    seconds = audio_length.unsqueeze(1).float() / rate_hz
    return torch.cat([seconds.log(), told.flatten(1)], dim=1)


def _root(x: Tensor) -> Tensor:
    return x.clamp(min=1e-6).sqrt()
