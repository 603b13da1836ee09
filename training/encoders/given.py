"""In place of an encoder: vectors that one has said before, so that a fusion can be trained without it."""

from __future__ import annotations

import torch
from torch import Tensor

from training.encoders.contract import Encoded, Encoder
from training.encoders.specs import Given


class GivenEncoder(Encoder):
    """float32 [rows, (1 + tokens) * width], the pooled vector first, to Encoded. Has no parameters."""

    def __init__(self, spec: Given) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)

    def forward(self, said: Tensor) -> Encoded:
        whole = said.view(len(said), 1 + self.tokens, self.width)
        return Encoded(tokens=whole[:, 1:], pooled=whole[:, 0])


def as_given(encoded: Encoded) -> Tensor:
    """What `GivenEncoder` takes apart again."""
    return torch.cat([encoded.pooled.unsqueeze(1), encoded.tokens], dim=1).flatten(1)
