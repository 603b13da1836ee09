"""Text by what it is like: the n-grams that it shares with remembered texts, whose meaning is known.

A weighted vote of all training texts (Nadaraya, On Estimating Regression, 1964; Watson, 1964), which is one
step of attention to them (Vinyals et al., Matching Networks for One Shot Learning, NIPS 2016). A text that is
like none of them gets no vote that counts, and the answer is that nothing is known: a stranger is told from a
relative of what was learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from training.encoders.contract import Encoded, Encoder, EncoderUnfit
from training.encoders.ngrams import bucket_of, hash_factors
from training.encoders.specs import RecallText
from training.encoders.text import look_up
from training.sounds import ALIKE
from training.tokenizer import ascii_ids

_SAME: Final = 0.98  # as likeness: bfloat16 reads 1 as no less
_BREAK: Final = 0  # what stands where a word begins and ends


class RecallTextEncoder(Encoder):
    """Likeness is the cosine of counted n-grams, the mean of two readings: letters, and classes of sounds.

    Two numbers are learnt: how far likeness goes, and how much is doubted. In training a row's own group,
    such as its language, is not heard, so that they are learnt from groups that are not remembered. The row
    is known by itself, which is remembered; of several groups that hold it one is left out, by chance.
    """

    studies: ClassVar[bool] = True
    says_labels: ClassVar[bool] = True
    factors: Tensor
    readings: Tensor
    table: Tensor
    meanings: Tensor
    groups: Tensor

    def __init__(self, spec: RecallText, *, vocabulary: int, pad_id: int) -> None:
        super().__init__(width=spec.width, tokens=spec.tokens)
        self.orders, self.buckets = spec.orders, spec.buckets
        readings = _readings(vocabulary, pad_id)
        self.register_buffer("factors", hash_factors(max(spec.orders)), persistent=False)
        self.register_buffer("readings", readings, persistent=False)
        self.register_buffer("table", torch.zeros(len(readings) * spec.buckets, spec.texts))
        self.register_buffer("meanings", torch.zeros(spec.texts, spec.width))
        self.register_buffer("groups", torch.full((spec.texts,), -1))
        self.sharpness = nn.Parameter(torch.tensor(spec.sharpness).log())
        self.doubt = nn.Parameter(torch.tensor(spec.doubt))

    @torch.no_grad()
    def study(self, inputs: Sequence[tuple[Tensor, ...]], targets: Tensor, groups: Tensor) -> None:
        count, room = len(targets), len(self.groups)
        if count > room:
            raise EncoderUnfit(f"{count} texts, and room for {room}. Raise `texts` of RecallText to {count}.")
        for buffer in (self.table, self.meanings):
            buffer.zero_()
        self.groups.fill_(-1)
        self.groups[:count] = groups
        self.meanings[:count] = targets.float()
        first = 0
        for (text,) in inputs:
            self.table[:, first : first + len(text)] = self._counted(text).T
            first += len(text)

    def forward(self, text: Tensor) -> Encoded:
        likeness = self.likeness(text)
        votes = ((likeness - 1) * self.sharpness.exp()).exp()
        if self.training:
            votes = votes.masked_fill(self._own(likeness), 0.0)
        said = (votes.float() @ self.meanings + self.doubt.exp()).log()
        known = nn.functional.log_softmax(said, dim=1)
        return Encoded(tokens=known.unsqueeze(1), pooled=known)

    def likeness(self, text: Tensor) -> Tensor:
        """To each remembered text, 0..1: [rows, texts]; 0 where there is none."""
        return self._counted(text) @ self.table

    def _counted(self, text: Tensor) -> Tensor:
        """N-grams of both readings, counted, to length 1 where there are any: [rows, rows of the table].

        Padding and what is between words is read as a break; an n-gram has no two of them side by side.
        """
        parts = []
        for at in range(len(self.readings)):
            tokens = nn.functional.pad(look_up(self.readings[at].unsqueeze(1), text).squeeze(2), (1, 1))
            found = [
                bucket_of(tokens, self.factors[order - 1], order=order, buckets=self.buckets)
                for order in self.orders
            ]
            here = [_is_whole(tokens, order) for order in self.orders]
            none = self.table.new_zeros(text.shape[0], self.buckets)  # `len` would fix it in a graph
            counts = none.scatter_add(1, torch.cat(found, dim=1), torch.cat(here, dim=1).float())
            length = counts.square().sum(dim=1, keepdim=True).clamp(min=1).sqrt()
            parts.append(counts / (length * len(self.readings) ** 0.5))
        return torch.cat(parts, dim=1)

    def _own(self, likeness: Tensor) -> Tensor:
        """Bool [rows, texts]: those of one group that holds the row itself."""
        drawn = torch.where(likeness > _SAME, torch.rand_like(likeness), -1.0)
        highest, at = drawn.max(dim=1)
        own = torch.where(highest >= 0, self.groups[at], -2)
        return self.groups == own.unsqueeze(1)


def _readings(vocabulary: int, pad_id: int) -> Tensor:
    """int64 [2, vocabulary]: each token as itself, and as the first of the letters that it is alike to."""
    ids = ascii_ids()
    breaks = [number for letter, number in ids.items() if not letter.isalnum() and number < vocabulary]
    as_itself = torch.arange(vocabulary) + 1
    as_itself[[pad_id, *breaks]] = _BREAK
    as_class = as_itself.clone()
    for sounds in ALIKE:
        for other in sounds:
            if ids[other] < vocabulary:
                as_class[ids[other]] = ids[sounds[0]] + 1
    return torch.stack([as_itself, as_class])


def _is_whole(tokens: Tensor, order: int) -> Tensor:
    """Bool [rows, tokens]: does an n-gram begin here that is more than a break, and has no two in a row?"""
    ahead = nn.functional.pad(tokens != _BREAK, (0, order))
    length = tokens.shape[1]
    if order == 1:
        return ahead[:, :length]
    whole = ahead[:, :length] | ahead[:, 1 : 1 + length]
    for place in range(1, order - 1):
        whole = whole & (ahead[:, place : place + length] | ahead[:, place + 1 : place + 1 + length])
    return whole
