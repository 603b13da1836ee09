"""From positions to vectors: one for the whole row, and one for each of K equal parts of it.

All go through one linear layer, so whichever of them fusion reads trains the same parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.encoders.contract import Encoded


class PeakReadout(nn.Module):
    """What is there on average and at most, for sequences: [rows, positions, channels] to Encoded."""

    def __init__(self, channels: int, width: int, *, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.out = nn.Linear(2 * channels, width)

    def forward(self, x: Tensor, valid: Tensor) -> Encoded:
        chosen = regions(valid, self.tokens)
        seen = torch.cat([masked_mean(x, chosen), masked_peak(x, chosen)], dim=2)
        return _apart(torch.relu(self.out(seen)))


class MeanReadout(nn.Module):
    """The average, for sequences that attention has mixed: [rows, positions, channels] to Encoded.

    With `has_summary` every vector also hears the state that stands for the whole row, such as [CLS].
    """

    def __init__(self, channels: int, width: int, *, tokens: int, has_summary: bool = False) -> None:
        super().__init__()
        self.tokens, self.has_summary = tokens, has_summary
        inputs = channels * (2 if has_summary else 1)
        self.norm = nn.LayerNorm(inputs)
        self.out = nn.Linear(inputs, width)

    def forward(self, x: Tensor, valid: Tensor, summary: Tensor | None = None) -> Encoded:
        """`summary` is [rows, channels]."""
        return self.read(with_summary(masked_mean(x, regions(valid, self.tokens)), summary))

    def read(self, seen: Tensor) -> Encoded:
        """From the means of the regions and the summary, if there is one: see `with_summary`."""
        if self.has_summary:
            means, summary = seen[:, :-1], seen[:, -1:]
            seen = torch.cat([means, summary.expand_as(means)], dim=2)
        return _apart(self.out(self.norm(seen)))


def with_summary(means: Tensor, summary: Tensor | None) -> Tensor:
    """[rows, regions, channels] and [rows, channels] below each other, the summary last."""
    return means if summary is None else torch.cat([means, summary.unsqueeze(1)], dim=1)


class GridReadout(nn.Module):
    """On average and at most, for pictures: [rows, channels, height, width] to Encoded, tokens row by row."""

    def __init__(self, channels: int, width: int, *, tokens: int) -> None:
        super().__init__()
        self.side = grid_side(tokens)
        self.out = nn.Linear(2 * channels, width)

    def forward(self, x: Tensor) -> Encoded:
        parts = cells(x, self.side)
        seen = [torch.cat([part.mean(dim=(2, 3)), part.amax(dim=(2, 3))], dim=1) for part in parts]
        return _apart(torch.relu(self.out(torch.stack(seen, dim=1))))


def grid_side(tokens: int) -> int:
    """Raises ValueError for a number of tokens that is no square."""
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"{tokens} tokens of an image are not a square grid. Ask for 1, 4, 9, 16, …")
    return side


def cells(x: Tensor, side: int) -> list[Tensor]:
    """The whole picture [rows, channels, height, width], then, if it has several, the cells of its grid.

    Cells are cut as adaptive pooling cuts them, and overlap where the sides do not divide.
    """
    down, across = _cuts(x.shape[2], side), _cuts(x.shape[3], side)
    inside = [x[:, :, rows, columns] for rows in down for columns in across]
    return [x, *inside] if side > 1 else [x]


def _cuts(length: int, parts: int) -> list[slice]:
    return [slice(part * length // parts, -(-(part + 1) * length // parts)) for part in range(parts)]


def regions(valid: Tensor, tokens: int) -> Tensor:
    """Bool [rows, regions, positions]: the whole row, then, if `tokens` is more than 1, its equal parts.

    `valid` is bool [rows, positions], true up to a row's length. Where a row has fewer positions than
    tokens, neighbouring parts share one; a row without any has empty regions.
    """
    whole = valid.unsqueeze(1)
    if tokens == 1:
        return whole
    length = valid.sum(dim=1, keepdim=True)
    part = torch.arange(tokens, device=valid.device)
    start = torch.div(part * length, tokens, rounding_mode="floor").unsqueeze(2)
    end = torch.div((part + 1) * length + tokens - 1, tokens, rounding_mode="floor").unsqueeze(2)
    at = torch.arange(valid.shape[1], device=valid.device)
    return torch.cat([whole, (at >= start) & (at < end) & whole], dim=1)


def masked_mean(x: Tensor, chosen: Tensor) -> Tensor:
    """[rows, positions, channels] and bool [rows, regions, positions] to [rows, regions, channels]."""
    kept = x.masked_fill(~chosen[:, 0].unsqueeze(2), 0.0)  # region 0 is the whole; NaN * 0 would be NaN
    count = chosen.sum(dim=2, keepdim=True).clamp(min=1)
    return torch.matmul(chosen.to(x.dtype), kept) / count


def masked_peak(x: Tensor, chosen: Tensor) -> Tensor:
    """As `masked_mean`, the highest; zeros for an empty region."""
    highest = torch.where(chosen.unsqueeze(3), x.unsqueeze(1), -1e4).amax(dim=2)
    return torch.where(chosen.any(dim=2).unsqueeze(2), highest, 0.0)


def _apart(said: Tensor) -> Encoded:
    """[rows, regions, width], the whole first."""
    return Encoded(tokens=said[:, 1:] if said.shape[1] > 1 else said, pooled=said[:, 0])
