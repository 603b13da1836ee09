"""Three small towers: prepared arrays as serving makes them in, one feature vector a row out.

Scaling, the spectrogram and the padding masks are in here, hence in the exported graphs. After every
layer that mixes time the padding is set to zero again, which is what a convolution sees beyond the end
of a row that is alone: so a padded row answers as it does alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.recipe import AudioAugmentation, Widths
from training.spectrogram import LogMel


class ImageEncoder(nn.Module):
    """uint8 [rows, height, width, 3] to [rows, features]. Colour is averaged away, contrast evened out."""

    def __init__(self, *, channels: tuple[int, int, int, int], features: int) -> None:
        super().__init__()
        first, second, third, fourth = channels
        self.tower = nn.Sequential(
            _convolution(1, first, size=5, stride=2),
            _convolution(first, second),
            _convolution(second, third, stride=2),
            _convolution(third, fourth),
        )
        self.out = nn.Linear(2 * fourth, features)

    def forward(self, image: Tensor) -> Tensor:
        grey = image.float().mean(dim=3) / 255
        centred = grey - grey.mean(dim=(1, 2), keepdim=True)
        spread = centred.square().mean(dim=(1, 2), keepdim=True)
        seen: Tensor = self.tower((centred * torch.rsqrt(spread + 1e-3)).unsqueeze(1))
        pooled = torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)
        return torch.relu(self.out(pooled))


class TextEncoder(nn.Module):
    """int32 [rows, tokens] to [rows, features]. A token is a character, or a byte of an unknown one."""

    def __init__(self, *, vocabulary: int, pad_id: int, channels: int, features: int) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.embed = nn.Embedding(vocabulary, channels)
        self.layers = nn.ModuleList(
            [nn.Conv1d(channels, channels, kernel_size=size, padding=size // 2) for size in (3, 5, 3)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in self.layers])
        self.out = nn.Linear(2 * channels, features)

    def forward(self, text: Tensor) -> Tensor:
        valid = (text != self.pad_id).unsqueeze(2)
        # Not the layer's own call: the exporter would name its result `embedding`, as an output is named.
        rows = self.embed.weight.index_select(0, text.flatten())
        x = rows.view(text.shape[0], text.shape[1], -1).masked_fill(~valid, 0.0)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            mixed = layer(x.transpose(1, 2)).transpose(1, 2)
            x = (x + torch.relu(norm(mixed))).masked_fill(~valid, 0.0)
        return torch.relu(self.out(_pool(x, valid, dim=1)))


class AudioEncoder(nn.Module):
    """float32 [rows, samples] and int32 [rows] to [rows, features]."""

    def __init__(self, *, rate_hz: int, widths: Widths, features: int, masks: AudioAugmentation) -> None:
        super().__init__()
        first, second, third, fourth = widths.audio_channels
        self.picture = LogMel(rate_hz=rate_hz, bands=widths.mel_bands)
        self.hide = SpectrogramMask(bands=masks.mask_bands, frames=masks.mask_frames)
        self.layers = nn.ModuleList(
            [
                _convolution(1, first, stride=2),
                _convolution(first, second, stride=2),
                _convolution(second, third, stride=2),
                _convolution(third, fourth),
            ]
        )
        self.strides = (2, 2, 2, 1)
        self.across = nn.Conv2d(fourth, fourth, kernel_size=(widths.mel_bands // 8, 1))  # all bands at once
        self.out = nn.Linear(2 * fourth, features)

    def forward(self, audio: Tensor, audio_length: Tensor) -> Tensor:
        picture, valid = self.picture(audio, audio_length)
        x = self.hide(picture).unsqueeze(1)
        for layer, stride in zip(self.layers, self.strides, strict=True):
            valid = valid[:, ::stride]
            x = layer(x).masked_fill(~valid[:, None, None, :], 0.0)
        heard = torch.relu(self.across(x)).squeeze(2)
        return torch.relu(self.out(_pool(heard, valid.unsqueeze(1), dim=2)))


class SpectrogramMask(nn.Module):
    """In training only: one stripe of bands and one of frames hidden in each row."""

    def __init__(self, *, bands: int, frames: int) -> None:
        super().__init__()
        self.bands, self.frames = bands, frames

    def forward(self, picture: Tensor) -> Tensor:
        if not self.training:
            return picture
        hidden_bands = _stripe(picture.shape[0], picture.shape[1], self.bands).unsqueeze(2)
        hidden_frames = _stripe(picture.shape[0], picture.shape[2], self.frames).unsqueeze(1)
        return picture.masked_fill(hidden_bands | hidden_frames, 0.0)


def _stripe(rows: int, length: int, widest: int) -> Tensor:
    """Bool [rows, length]: a random stretch of 0 to `widest`."""
    start = torch.rand(rows, 1) * length
    width = torch.rand(rows, 1) * widest
    at = torch.arange(length)
    return (at >= start) & (at < start + width)


def _convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _pool(x: Tensor, valid: Tensor, *, dim: int) -> Tensor:
    """Mean and maximum over the valid positions of `dim`; zeros for a row that has none."""
    count = valid.sum(dim=dim).clamp(min=1)
    mean = x.masked_fill(~valid, 0.0).sum(dim=dim) / count
    highest = x.masked_fill(~valid, -1e4).amax(dim=dim)
    return torch.cat([mean, torch.where(valid.any(dim=dim), highest, 0.0)], dim=1)
