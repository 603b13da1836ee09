"""Kernel ridge regression: what an item is, by its likeness to every training item.

Saunders, Gammerman and Vovk, Ridge Regression Learning Algorithm in Dual Variables, 1998. A few thousand
items are too few for a network and few enough for one linear equation: what gradient descent finds in
minutes, and overshoots, is solved here. What likeness is is not here, but told for pictures, texts and
recordings in kernel_image.py, kernel_text.py and kernel_audio.py.

What reads the answers must not learn from those to items that the regression was fitted on: they are nearly
right. So in training such an item is answered as by a regression without its whole group, which the same
equation tells (leave one out: Cook and Weisberg, Residuals and Influence in Regression, 1982).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from training.encoders.contract import Encoded, Encoder, EncoderUnfit

_MOST: Final = 8_192  # items: the equation is solved in double precision, 0.5 GB for so many
_SHARPNESS: Final = 8.0  # before training; answers differ by less than 1
_SEED: Final = 1998  # of the factors that items are told apart by
_FACTOR: Final = 2**31

Inputs = tuple[Tensor, ...]


class KernelEncoder(Encoder, ABC):
    """Logits: the answers of the regression, one for each label, sharpened, and a bias.

    These `width` + 1 numbers are all that is learnt. A free layer over the answers learns more from so few
    groups than they tell.
    """

    studies: ClassVar[bool] = True
    leaves_out: ClassVar[bool] = True
    says_labels: ClassVar[bool] = True
    kept: ClassVar[str]  # what an item is called
    instead: ClassVar[str]  # for more items than can be kept

    offset: Tensor  # [labels], share of each
    keys: Tensor  # int64 [items]
    left_out: Tensor  # [items, labels], what the regression without an item's group says of it

    def __init__(self, *, width: int, ridge: float) -> None:
        super().__init__(width=width, tokens=1)
        self.ridge = ridge
        self.register_buffer("offset", torch.zeros(width))
        # For the run that studied alone: a resumed one studies again, and averaging weights would round keys.
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("left_out", torch.zeros(0, width), persistent=False)
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS).log())
        self.bias = nn.Parameter(torch.zeros(width))

    def answers(self, *inputs: Tensor) -> Tensor:
        """[rows, labels], about 1 where a label holds and 0 where it does not."""
        return self.offset + self.regressed(*inputs).float()

    @abstractmethod
    def regressed(self, *inputs: Tensor) -> Tensor:
        """What speaks for each label beyond its share: double [rows, labels].

        Answers are sums of hundreds of likenesses with weights of both signs: in single precision two
        runtimes, which add up in other orders, would differ by 1e-5, and by ten times that once sharpened.
        """

    @abstractmethod
    def keys_of(self, *inputs: Tensor) -> Tensor:
        """By which a training item is known again: int64 [rows], whatever pads them."""

    @abstractmethod
    def compare(self, inputs: Sequence[Inputs]) -> Tensor:
        """Learn what is usual, and how alike the items are: double [items, items]."""

    @abstractmethod
    def weigh(self, weights: Tensor, inputs: Sequence[Inputs]) -> None:
        """Keep what `regressed` needs of the solution, double [items, labels]."""

    @torch.no_grad()
    def study(self, inputs: Sequence[Inputs], targets: Tensor, groups: Tensor) -> None:
        if len(targets) > _MOST:
            raise EncoderUnfit(
                f"a kernel machine compares every {self.kept} of training with every other, {_MOST} at most, "
                f"and there are {len(targets)}. Use an encoder that learns by gradient descent, such as "
                f"{self.instead}."
            )
        if targets.shape[1] != self.width:
            raise EncoderUnfit(
                f"the kernel machine is made for {self.width} labels, and rows have {targets.shape[1]}. "
                "Set 'width' to their number."
            )
        self.keys = torch.cat([self.keys_of(*one) for one in inputs])
        wanted = targets.double()
        share = wanted.mean(dim=0)
        alike = self.compare(inputs)
        alike.diagonal().add_(self.ridge)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(alike))
        weights = inverse @ (wanted - share)
        self.offset = share.float()
        self.weigh(weights, inputs)
        self.left_out = (wanted - _residuals(inverse, weights, groups)).float()

    def said(self, *inputs: Tensor) -> Encoded:
        with torch.autocast(inputs[0].device.type, enabled=False), torch.no_grad():
            answers = self._unseen(*inputs) if self.training else self.answers(*inputs)
        logits = answers * self.sharpness.exp() + self.bias
        return Encoded(tokens=logits.unsqueeze(1), pooled=logits)

    def _unseen(self, *inputs: Tensor) -> Tensor:
        """As by a regression that has not seen the item, nor others of its group.

        Of items that are the same in several groups each is left out in turn, and the mean is the answer.
        """
        same = self.keys_of(*inputs).unsqueeze(1) == self.keys
        found = same.sum(dim=1, keepdim=True)
        answers = same.float() @ self.left_out / found.clamp(min=1)
        new = found.squeeze(1) == 0
        if bool(new.any()):
            answers[new] = self.answers(*(values[new] for values in inputs))
        return answers


def key_factors(count: int) -> Tensor:
    """int64 [count], below 2**31: a key is the sum of an item's numbers, each times the factor of its place.

    A sum that leaves int64 wraps, the same way for the same item.
    """
    return torch.randint(_FACTOR, (count,), generator=torch.Generator().manual_seed(_SEED))


def _residuals(inverse: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
    """Target less the answer of a regression without the item's group: double [items, labels].

    With G the group's rows, (inverse of H)[G, G] residual[G] = weights[G].
    """
    found = torch.empty_like(weights)
    for group in set(groups.tolist()):
        at = (groups == group).nonzero().squeeze(1)
        found[at] = torch.linalg.solve(inverse[at][:, at], weights[at])
    return found
