"""Kernel ridge regression on given numbers: items are as alike as they are near. It keeps every item."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from training.encoders.kernel import Inputs, KernelEncoder

_RARE: Final = 1e-3  # variance below which a number is not blown up to the size of the others
_FARTHEST: Final = 4.0  # standard deviations; what is farther is as far


class NearnessEncoder(KernelEncoder):
    """Each kind of number counts as much as any other, however many numbers it has."""

    mean: Tensor
    scale: Tensor
    share: Tensor
    anchors: Tensor  # [views * items, numbers], even: the first view of all items, then the second
    weights: Tensor  # [views * items, labels]: of an item, the same for each of its views

    def __init__(self, *, width: int, ridge: float, reach: float, kinds: Sequence[int]) -> None:
        """`kinds` are how many numbers each kind has, in their order."""
        super().__init__(width=width, ridge=ridge)
        self.reach = reach
        share = torch.cat([torch.full((count,), (count * len(kinds)) ** -0.5) for count in kinds])
        self.register_buffer("share", share, persistent=False)
        self.register_buffer("mean", torch.zeros(sum(kinds)))
        self.register_buffer("scale", torch.ones(sum(kinds)))
        self.register_buffer("anchors", torch.zeros(0, sum(kinds)))
        self.register_buffer("weights", torch.zeros(0, width))

    @abstractmethod
    def views(self, *inputs: Tensor) -> list[Tensor]:
        """Each way to see the rows, [rows, numbers]; two items are as alike as their views on average."""

    def regressed(self, *inputs: Tensor) -> Tensor:
        seen = [self._even(view) for view in self.views(*inputs)]
        return self._alike(seen) @ self.weights.double() / len(seen)

    def compare(self, inputs: Sequence[Inputs]) -> Tensor:
        views = list(zip(*(self.views(*one) for one in inputs), strict=True))
        every = torch.cat([torch.cat(view) for view in views])
        self.mean = every.mean(dim=0)
        self.scale = (every.var(dim=0, correction=0) + _RARE).rsqrt()
        self.anchors = self._even(every)
        count = len(every) // len(views)
        return self._alike(self.anchors.chunk(len(views))).view(count, len(views), count).mean(dim=1)

    def weigh(self, weights: Tensor, inputs: Sequence[Inputs]) -> None:  # noqa: ARG002 - kept by `compare`
        self.weights = weights.float().repeat(len(self.anchors) // len(weights), 1)

    def _even(self, seen: Tensor) -> Tensor:
        """Squared distances between such rows are the mean over kinds of the mean over their numbers."""
        even = ((seen - self.mean) * self.scale).clamp(-_FARTHEST, _FARTHEST)
        return even * self.share

    def _alike(self, views: Sequence[Tensor]) -> Tensor:
        """Double [rows, views * items], between 0 and the number of views."""
        anchors = self.anchors.double()
        own = anchors.square().sum(dim=1)

        def near(x: Tensor) -> Tensor:
            apart = x.square().sum(dim=1, keepdim=True) + own - 2 * x @ anchors.T
            return torch.exp(-self.reach * apart.clamp(min=0))

        first, *others = (near(view.double()) for view in views)
        for other in others:
            first = first + other
        return first

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """How many items there are is known from the weights alone."""
        for name in ("anchors", "weights"):
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)
