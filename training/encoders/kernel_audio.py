"""Recordings by the likeness of their statistics to those of every training recording."""

from __future__ import annotations

from typing import ClassVar, Final

import torch
from torch import Tensor

from app.bundle.manifest import AudioInput
from training.encoders.contract import Encoded
from training.encoders.kernel import key_factors
from training.encoders.kernel_near import NearnessEncoder
from training.encoders.specs import KernelAudio
from training.encoders.spectrogram import LogMel
from training.encoders.statistics import statistics

_STEPS: Final = 2**15  # of a sample between 0 and full scale, that recordings are told apart by


class KernelAudioEncoder(NearnessEncoder):
    kept: ClassVar[str] = "recording"
    instead: ClassVar[str] = "StatisticAudio"
    factors: Tensor

    def __init__(self, spec: KernelAudio, audio: AudioInput) -> None:
        picture = LogMel(rate_hz=audio.sample_rate, bands=spec.bands, hop_s=spec.hop_s)
        places = 1 + spec.parts if spec.parts > 1 else 1
        kinds = [1, *[spec.bands] * (2 * places + 2)]
        super().__init__(width=spec.width, ridge=spec.ridge, reach=spec.reach, kinds=kinds)
        self.picture, self.parts, self.rate_hz = picture, spec.parts, audio.sample_rate
        longest = max(audio.min_samples, round(audio.max_seconds * audio.sample_rate))
        self.register_buffer("factors", key_factors(longest), persistent=False)

    def forward(self, audio: Tensor, audio_length: Tensor) -> Encoded:
        return self.said(audio, audio_length)

    def views(self, *inputs: Tensor) -> list[Tensor]:
        audio, audio_length = inputs
        return [statistics(self.picture, audio, audio_length, parts=self.parts, rate_hz=self.rate_hz)]

    def keys_of(self, *inputs: Tensor) -> Tensor:
        audio, audio_length = inputs
        here = torch.arange(audio.shape[1], device=audio.device) < audio_length.unsqueeze(1)
        steps = torch.where(here, audio * _STEPS, 0.0).round().long()
        return (steps * self.factors[: audio.shape[1]]).sum(dim=1)
