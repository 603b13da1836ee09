"""One modality to the width that all share, before any other modality is heard."""

from __future__ import annotations

from torch import Tensor, nn


class Tower(nn.Module):
    """[..., encoder width] to [..., width]: z = LayerNorm(P e), and where it is deep u = MLP(z)."""

    def __init__(self, encoder_width: int, width: int, *, deep: bool, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(encoder_width, width)
        self.norm = nn.LayerNorm(width)
        self.think = _two_layers(width, dropout=dropout) if deep else nn.Identity()

    def forward(self, encoded: Tensor) -> Tensor:
        told: Tensor = self.think(self.norm(self.project(encoded)))
        return told


def _two_layers(width: int, *, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
    )
