"""Texts by the n-grams that they share with every training text.

Likeness is the cosine of counted n-grams, a sum over n-grams; so is an answer, and what is kept is not the
texts but the weights of n-grams. Counts are damped and rare n-grams count more (Salton and Buckley,
Term-Weighting Approaches in Automatic Text Retrieval, 1988).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from training.encoders.contract import Encoded
from training.encoders.kernel import Inputs, KernelEncoder, key_factors
from training.encoders.ngrams import begins, bucket_of, framed, hash_factors
from training.encoders.specs import KernelText
from training.encoders.text import look_up


class KernelTextEncoder(KernelEncoder):
    kept: ClassVar[str] = "text"
    instead: ClassVar[str] = "NgramText"
    rarity: Tensor  # [buckets]
    weights: Tensor  # [buckets, labels]
    hashing: Tensor
    factors: Tensor

    def __init__(self, spec: KernelText, *, pad_id: int, most_tokens: int) -> None:
        super().__init__(width=spec.width, ridge=spec.ridge)
        self.pad_id, self.buckets, self.orders = pad_id, spec.buckets, spec.orders
        self.register_buffer("hashing", hash_factors(max(spec.orders)), persistent=False)
        self.register_buffer("factors", key_factors(most_tokens), persistent=False)
        self.register_buffer("rarity", torch.ones(spec.buckets))
        self.register_buffer("weights", torch.zeros(spec.buckets, spec.width))

    def forward(self, text: Tensor) -> Encoded:
        return self.said(text)

    def regressed(self, *inputs: Tensor) -> Tensor:
        buckets, counts = self._found(*inputs)
        return (look_up(self.weights, buckets).double() * counts.double().unsqueeze(2)).sum(dim=1)

    def keys_of(self, *inputs: Tensor) -> Tensor:
        [text] = inputs
        tokens = torch.where(text != self.pad_id, text.long() + 1, 0)
        return (tokens * self.factors[: text.shape[1]]).sum(dim=1)

    def compare(self, inputs: Sequence[Inputs]) -> Tensor:
        here = torch.zeros(self.buckets)
        texts = 0
        self.rarity = torch.ones(self.buckets)
        for one in inputs:
            here += (self._counted(*one).to_dense() > 0).sum(dim=0)
            texts += len(one[0])
        self.rarity = ((1 + texts) / (1 + here)).log() + 1
        counted = [self._counted(*one) for one in inputs]
        every = torch.cat(counted)
        return torch.cat([torch.sparse.mm(every, one.to_dense().T.contiguous()) for one in counted], dim=1)

    def weigh(self, weights: Tensor, inputs: Sequence[Inputs]) -> None:
        parts = zip(inputs, torch.split(weights, [len(one[0]) for one in inputs]), strict=True)
        total = sum(torch.sparse.mm(self._counted(*one).T, part) for one, part in parts)
        assert isinstance(total, Tensor), "there are items"
        self.weights = total.float()

    def _counted(self, *inputs: Tensor) -> Tensor:
        """Sparse double [rows, buckets], of length 1."""
        buckets, counts = self._found(*inputs)
        rows = torch.arange(len(buckets)).unsqueeze(1).expand_as(buckets)
        return torch.sparse_coo_tensor(
            torch.stack([rows.flatten(), buckets.flatten()]),
            counts.flatten().double(),
            (len(buckets), self.buckets),
            check_invariants=False,
        ).coalesce()

    def _found(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Where n-grams are counted, int64 [rows, n-grams], and what each place adds there, 0 for padding.

        An n-gram that is there k times counts 1 + log k: each of its places a k-th of that.
        """
        marked = framed(text, pad_id=self.pad_id)
        valid = marked != self.pad_id
        buckets, shares, squares = [], [], []
        for order in self.orders:
            bucket = bucket_of(marked, self.hashing[order - 1], order=order, buckets=self.buckets)
            here = begins(valid, order).float()
            times = ((bucket.unsqueeze(2) == bucket.unsqueeze(1)) * here.unsqueeze(1)).sum(dim=2).clamp(min=1)
            damped = (1 + times.log()) * look_up(self.rarity.unsqueeze(1), bucket).squeeze(2) * here
            buckets.append(bucket)
            shares.append(damped / times)
            squares.append((damped.square() / times).sum(dim=1, keepdim=True))
        length = torch.cat(squares, dim=1).sum(dim=1, keepdim=True).sqrt()
        return torch.cat(buckets, dim=1), torch.cat(shares, dim=1) / length.clamp(min=1e-6)
