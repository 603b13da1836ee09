"""Audio tower from scratch: float32 [rows, samples] and int32 [rows] to Encoded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from app.bundle.manifest import AudioInput
from training.encoders.contract import Encoded, Encoder, EncoderUnfit
from training.encoders.image import ResidualBlock, convolution
from training.encoders.readout import PeakReadout
from training.encoders.specs import MelAudio
from training.encoders.spectrogram import LogMel


class MelAudioEncoder(Encoder):
    """Frames that pad a row are set to zero after every layer: what a row that is alone sees there."""

    def __init__(self, spec: MelAudio, audio: AudioInput) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)
        self.picture = LogMel(
            rate_hz=audio.sample_rate,
            bands=spec.bands,
            window_s=spec.window_s,
            hop_s=spec.hop_s,
            is_relative=spec.is_relative,
        )
        if audio.min_samples < self.picture.window:
            raise EncoderUnfit(
                f"the shortest recording has {audio.min_samples} samples, a window of the spectrogram "
                f"{self.picture.window}. Raise 'min_samples', or shorten 'window_s'."
            )
        self.hide = SpectrogramMask(bands=spec.mask_bands, frames=spec.mask_frames)
        self.layers = nn.ModuleList()
        self.strides = (*[2] * (len(spec.channels) - 1), 1)
        before, bands = 1, spec.bands
        for after, stride in zip(spec.channels, self.strides, strict=True):
            deeper = [ResidualBlock(after, after) for _ in range(spec.blocks)]
            self.layers.append(nn.ModuleList([convolution(before, after, stride=stride), *deeper]))
            before, bands = after, -(-bands // stride)
        self.across = nn.Conv2d(before, before, kernel_size=(bands, 1))  # all bands at once
        self.readout = PeakReadout(before, spec.width, tokens=spec.tokens)

    def forward(self, audio: Tensor, audio_length: Tensor) -> Encoded:
        picture, valid = self.picture(audio, audio_length)
        x = self.hide(picture).unsqueeze(1)
        for layers, stride in zip(self.layers, self.strides, strict=True):
            assert isinstance(layers, nn.ModuleList)
            first, *deeper = layers
            valid = valid[:, ::stride]
            frames = valid.unsqueeze(1).unsqueeze(1)
            x = first(x).masked_fill(~frames, 0.0)
            for block in deeper:
                x = block(x, frames)
        heard = torch.relu(self.across(x)).squeeze(2)
        said: Encoded = self.readout(heard.transpose(1, 2), valid)
        return said


class SpectrogramMask(nn.Module):
    """In training only: one stripe of bands and one of frames hidden in each row."""

    def __init__(self, *, bands: int, frames: int) -> None:
        super().__init__()
        self.bands, self.frames = bands, frames

    def forward(self, picture: Tensor) -> Tensor:
        """[rows, bands, frames] to the same."""
        if not self.training:
            return picture
        rows, bands, frames = picture.shape
        hidden_bands = _stripe(rows, bands, self.bands, picture.device).unsqueeze(2)
        hidden_frames = _stripe(rows, frames, self.frames, picture.device).unsqueeze(1)
        return picture.masked_fill(hidden_bands | hidden_frames, 0.0)


def _stripe(rows: int, length: int, widest: int, device: torch.device) -> Tensor:
    """Bool [rows, length]: a random stretch of 0 to `widest`."""
    start = torch.rand(rows, 1, device=device) * length
    width = torch.rand(rows, 1, device=device) * widest
    at = torch.arange(length, device=device)
    return (at >= start) & (at < start + width)
