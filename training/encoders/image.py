"""Image towers from scratch: uint8 [rows, height, width, 3] to Encoded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.encoders.contract import Encoded, Encoder
from training.encoders.norm import BatchNorm2d
from training.encoders.readout import GridReadout
from training.encoders.specs import PlainImage, ResidualImage


class PlainImageEncoder(Encoder):
    """Colour is averaged away and contrast evened out; then four convolutions."""

    def __init__(self, spec: PlainImage) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)
        first, second, third, fourth = spec.channels
        self.tower = nn.Sequential(
            convolution(1, first, size=5, stride=2),
            convolution(first, second),
            convolution(second, third, stride=2),
            convolution(third, fourth),
        )
        self.readout = GridReadout(fourth, spec.width, tokens=spec.tokens)

    def forward(self, image: Tensor) -> Encoded:
        said: Encoded = self.readout(self.tower(_even_grey(image)))
        return said


class ResidualImageEncoder(Encoder):
    """A residual network over the grey or the coloured image."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: ResidualImage) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)
        self.is_grey = spec.is_grey
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(spec.deviation).view(3, 1, 1), persistent=False)
        first, size = spec.channels[0], 3 if spec.stem_stride == 1 else 5
        self.stem = convolution(1 if spec.is_grey else 3, first, size=size, stride=spec.stem_stride)
        self.stages = nn.Sequential()
        before = first
        for stage, after in enumerate(spec.channels):
            for block in range(spec.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                self.stages.append(ResidualBlock(before, after, stride=stride))
                before = after
        self.readout = GridReadout(before, spec.width, tokens=spec.tokens)

    def forward(self, image: Tensor) -> Encoded:
        if self.is_grey:
            seen = _even_grey(image)
        else:
            seen = (image.permute(0, 3, 1, 2).float() - self.mean) / self.deviation
        said: Encoded = self.readout(self.stages(self.stem(seen)))
        return said


class ResidualBlock(nn.Module):
    """Two convolutions beside a way around them. A normalisation follows each, so export folds them all.

    `valid`, bool [rows, 1, 1, frames] of the input, keeps what pads a row at zero; None where nothing does.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.first = convolution(inputs, outputs, stride=stride)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False), BatchNorm2d(outputs)
        )
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, bias=False), BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        inside = self.first(x)
        if valid is not None:
            inside = inside.masked_fill(~valid, 0.0)
        # The way around takes every second place by itself. A convolution of one place that is asked to gives
        # wrong gradients, or never ends, where its input has fewer than 8 channels, channels last, and the
        # processor has AVX2 but not AVX-512 (oneDNN issue 6035).
        there = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        seen = torch.relu(self.second(inside) + self.around(there))
        return seen if valid is None else seen.masked_fill(~valid, 0.0)


def convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=size, stride=stride, padding=size // 2, bias=False),
        BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _even_grey(image: Tensor) -> Tensor:
    """uint8 [rows, height, width, 3] to float [rows, 1, height, width] of mean 0 and deviation 1."""
    grey = image.float().mean(dim=3) / 255
    centred = grey - grey.mean(dim=(1, 2), keepdim=True)
    spread = centred.square().mean(dim=(1, 2), keepdim=True)
    return (centred * torch.rsqrt(spread + 1e-3)).unsqueeze(1)
