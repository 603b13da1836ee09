"""Text as a bag of n-grams, hashed inside the graph: int32 [rows, tokens], padded at the end, to Encoded."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from training.encoders.contract import Encoded, Encoder
from training.encoders.readout import masked_mean, regions
from training.encoders.specs import NgramText
from training.encoders.text import look_up

_PRIME: Final = 2**31 - 1
_MARK: Final = 2**30  # no vocabulary is as large
_SEED: Final = 2017  # of the hash's factors: part of what an exported graph means, so never changed


class NgramTextEncoder(Encoder):
    """Mean of the embeddings of all n-grams of a row, then two dense layers."""

    factors: Tensor

    def __init__(self, spec: NgramText, *, pad_id: int) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)
        self.pad_id, self.buckets, self.orders = pad_id, spec.buckets, spec.orders
        self.register_buffer("factors", hash_factors(max(spec.orders)), persistent=False)
        self.table = nn.Parameter(torch.empty(spec.buckets, spec.channels).uniform_(-0.1, 0.1))
        self.has_ends, self.is_rooted = spec.has_ends, spec.is_rooted
        self.out = _dense(spec) if spec.hidden else _linear(spec)

    def forward(self, text: Tensor) -> Encoded:
        if self.has_ends:
            text = framed(text, pad_id=self.pad_id)
        valid = text != self.pad_id
        chosen = regions(valid, self.tokens)
        total: Tensor | float = 0.0
        found: Tensor | float = 0.0
        for order in self.orders:
            # An n-gram is where all its tokens are, and belongs to the part where it starts.
            here = chosen & begins(valid, order).unsqueeze(1)
            count = here.sum(dim=2, keepdim=True)
            rows = look_up(self.table, self.hashed(text, order))
            total = total + masked_mean(rows, here) * count
            found = found + count
        assert isinstance(found, Tensor), "there is at least one order"
        found = found.clamp(min=1)
        said = self.out(total / (found.sqrt() if self.is_rooted else found))
        return Encoded(tokens=said[:, 1:] if self.tokens > 1 else said, pooled=said[:, 0])

    def hashed(self, text: Tensor, order: int) -> Tensor:
        """Bucket of the n-gram that starts at each token: int64 [rows, tokens]."""
        return bucket_of(text, self.factors[order - 1], order=order, buckets=self.buckets)


def _dense(spec: NgramText) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(spec.channels),
        nn.Dropout(spec.dropout),
        nn.Linear(spec.channels, spec.hidden),
        nn.ReLU(),
        nn.Dropout(spec.dropout),
        nn.Linear(spec.hidden, spec.width),
    )


def _linear(spec: NgramText) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(spec.channels, spec.width))


def framed(text: Tensor, *, pad_id: int) -> Tensor:
    """A mark before and after the tokens of each row: [rows, tokens] to [rows, tokens + 2]."""
    ids = text.long()
    end = (ids != pad_id).sum(dim=1, keepdim=True) + 1
    at = torch.arange(ids.shape[1] + 2, device=ids.device)
    wider = nn.functional.pad(ids, (1, 1), value=pad_id)
    return torch.where((at == 0) | (at == end), _MARK, wider)


def begins(valid: Tensor, order: int) -> Tensor:
    """Bool [rows, tokens]: does the row have `order` tokens from here on?"""
    beyond = nn.functional.pad(valid.long(), (0, order - 1))
    return beyond[:, order - 1 :] > 0


def bucket_of(text: Tensor, factors: Tensor, *, order: int, buckets: int) -> Tensor:
    """Of the n-gram that starts at each token: int64 [rows, tokens].

    A random linear form modulo a prime (Carter and Wegman, 1979): every factor and every token is below
    2**31, so no product and no sum leaves int64, where ONNX Runtime and torch need not agree.
    """
    tokens = nn.functional.pad(text.long() + 1, (0, order - 1))
    code = factors[0].expand(text.shape)
    for place in range(order):
        token = tokens[:, place : place + text.shape[1]]
        code = (code + token * factors[place + 1]) % _PRIME
    return code % buckets


def hash_factors(orders: int) -> Tensor:
    """int64 [orders, 1 + orders]: for each order its constant, then the factor of each place."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randint(1, _PRIME, (orders, 1 + orders), generator=generator)
