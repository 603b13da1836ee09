"""Pictures by descriptors that nobody trains, then one dense layer: for sets of a thousand pictures.

Where pictures are few, a network spends them on learning what an edge is. Here edges and colours are given:
histograms of oriented gradients (Dalal and Triggs, Histograms of Oriented Gradients for Human Detection,
2005), of colour (Swain and Ballard, Color Indexing, 1991), and what is left of a picture when it is small.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from app.bundle.manifest import ImageInput
from training.encoders.contract import Encoded, Encoder, EncoderUnfit
from training.encoders.norm import BatchNorm1d
from training.encoders.specs import DescribedImage

_ORIENTATIONS: Final = 9
_SHADES: Final = 4  # of each channel, in the histogram of colours
_LEAST: Final = 32  # pixels of a side: two cells of the coarsest grid
_PAPER: Final = 0.04  # ink below this is paper


class DescribedImageEncoder(Encoder):
    """In evaluation a picture and its mirror image are heard, so the answer is the same for both."""

    def __init__(self, spec: DescribedImage, image: ImageInput) -> None:
        super().__init__(width=spec.width, tokens=1)
        self.describe = descriptors_for(image)
        found = self.describe(torch.zeros(1, 3, image.height, image.width)).shape[1]
        self.even = BatchNorm1d(found, eps=1e-3)  # what is rare is not blown up to the size of what is usual
        self.out = nn.Sequential(
            nn.Dropout(spec.hide),
            nn.Linear(found, spec.width),
            BatchNorm1d(spec.width),
            nn.GELU(),
            nn.Dropout(spec.dropout),
        )

    def forward(self, image: Tensor) -> Encoded:
        ink = 1 - image.permute(0, 3, 1, 2).float() / 255
        said = self._say(ink) if self.training else (self._say(ink) + self._say(ink.flip(3))) / 2
        return Encoded(tokens=said.unsqueeze(1), pooled=said)

    def _say(self, ink: Tensor) -> Tensor:
        with torch.autocast(ink.device.type, enabled=False), torch.no_grad():
            described = self.describe(ink)
        said: Tensor = self.out(self.even(described))
        return said


def descriptors_for(image: ImageInput) -> Descriptors:
    """Raises EncoderUnfit for pictures that are too small for them."""
    if min(image.height, image.width) < _LEAST:
        raise EncoderUnfit(
            f"the picture is {image.height} by {image.width} pixels; its descriptors need {_LEAST} at "
            "least. Raise 'height' and 'width'."
        )
    return Descriptors()


class Descriptors(nn.Module):
    """Ink, 1 - colour, float [rows, 3, height, width] in 0..1, to [rows, descriptors].

    `parts` are the same by what they describe: one coarse histogram, one fine grid, one outline, ...
    """

    cosine: Tensor
    sine: Tensor
    shades: Tensor

    def __init__(self) -> None:
        super().__init__()
        double = torch.arange(_ORIENTATIONS) * (2 * math.pi / _ORIENTATIONS)  # a line has no direction
        self.register_buffer("cosine", double.cos().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("sine", double.sin().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shades", torch.linspace(0, 1, _SHADES).view(1, -1, 1, 1), persistent=False)

    def forward(self, ink: Tensor) -> Tensor:
        return torch.cat(self.parts(ink), dim=1)

    def parts(self, ink: Tensor) -> list[Tensor]:
        """Float [rows, descriptors of the part] each."""
        half = avg_pool2d(ink, 2)
        grey = ink.mean(dim=1, keepdim=True)
        edges = self.edges(grey)
        mask = (grey > _PAPER).float()
        strongest = ink.amax(dim=1, keepdim=True)
        saturation = strongest - ink.amin(dim=1, keepdim=True)
        return [
            _oriented(edges, cell=8),
            _oriented(edges, cell=16),
            _oriented(self.edges(half.mean(dim=1, keepdim=True)), cell=8),
            edges.mean(dim=(2, 3)).sqrt(),
            avg_pool2d(edges.amax(dim=1, keepdim=True), 4).flatten(1).sqrt(),
            *self.colours(half),
            avg_pool2d(ink, 8).flatten(1),
            avg_pool2d(saturation, 16).flatten(1),
            avg_pool2d(mask, 4).flatten(1),
            mask.mean(dim=3).flatten(1),
            mask.mean(dim=2).flatten(1),
        ]

    def edges(self, grey: Tensor) -> Tensor:
        """How strong an edge is in each orientation: [rows, 1, height, width] to [rows, 9, height, width]."""
        framed = nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
        across = framed[:, :, 1:-1, 2:] - framed[:, :, 1:-1, :-2]
        down = framed[:, :, 2:, 1:-1] - framed[:, :, :-2, 1:-1]
        # Not `+ 1e-8`: the exporter takes so little for nothing, and flat paper would be 0 / 0.
        power = (across.square() + down.square()).clamp(min=1e-8)
        # Of twice the angle, cosine and sine are these two: no arc tangent, and no bin with a border.
        turned = (across.square() - down.square()) / power * self.cosine
        turned = turned + 2 * across * down / power * self.sine
        return turned.clamp(min=0) ** 3 * power.sqrt()

    def colours(self, half: Tensor) -> list[Tensor]:
        """Shares of 64 colours, in the whole and in quarters; a pixel counts for its two nearest shades."""
        red, green, blue = (
            (1 - (half[:, at : at + 1] - self.shades).abs() * (_SHADES - 1)).clamp(min=0) for at in range(3)
        )
        both = (red.unsqueeze(2) * green.unsqueeze(1)).flatten(1, 2)
        joint = (both.unsqueeze(2) * blue.unsqueeze(1)).flatten(1, 2)
        quarters = avg_pool2d(joint, (half.shape[2] // 2, half.shape[3] // 2))
        return [quarters.mean(dim=(2, 3)).sqrt(), quarters.flatten(1).sqrt()]


def _oriented(edges: Tensor, *, cell: int) -> Tensor:
    """Histograms of cells, each relative to the blocks of four that begin and that end with it."""
    histogram = avg_pool2d(edges, cell)
    power = histogram.square().sum(dim=1, keepdim=True)
    block = avg_pool2d(power, 2, stride=1).sqrt() + 0.02
    relative = [histogram[:, :, :-1, :-1] / block, histogram[:, :, 1:, 1:] / block]
    return torch.cat(relative, dim=1).clamp(max=1).flatten(1).sqrt()
