"""Pictures by their likeness to every training picture: kernel ridge regression on given descriptors.

Saunders, Gammerman and Vovk, Ridge Regression Learning Algorithm in Dual Variables, 1998. A thousand pictures
are too few for a network and few enough to keep: what gradient descent finds in minutes, and overshoots, is
one linear equation here. Each kind of descriptor counts as much as any other, however many numbers it has; a
picture is like another one if its mirror image is.

What reads the answers must not learn from those to pictures that the regression was fitted on: they are
nearly right. So in training such a picture is answered as by a regression without its whole group, which the
same equation tells (leave one out: Cook and Weisberg, Residuals and Influence in Regression, 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from app.bundle.manifest import ImageInput
from training.encoders.contract import Encoded, Encoder, EncoderUnfit
from training.encoders.descriptors import descriptors_for
from training.encoders.specs import KernelImage

_MOST: Final = 8_192  # pictures: the equation is solved in double precision, 0.5 GB for so many
_RARE: Final = 1e-3  # variance below which a descriptor is not blown up to the size of the others
_FARTHEST: Final = 4.0  # standard deviations; what is farther is as far
_SEED: Final = 1998  # of the factors that pictures are told apart by


class KernelImageEncoder(Encoder):
    """A vector from the answers of the regression, one for each label."""

    studies: ClassVar[bool] = True

    mean: Tensor
    scale: Tensor
    share: Tensor
    anchors: Tensor  # [2 * pictures, descriptors], even: those of all pictures, then of their mirror images
    weights: Tensor  # [2 * pictures, labels]: of a picture, and the same of its mirror image
    offset: Tensor  # [labels], share of each
    keys: Tensor  # int64 [pictures]
    left_out: Tensor  # [pictures, labels], what the regression without a picture's group says of it
    factors: Tensor

    def __init__(self, spec: KernelImage, image: ImageInput) -> None:
        super().__init__(width=spec.width, tokens=1)
        self.labels, self.reach, self.ridge = spec.labels, spec.reach, spec.ridge
        self.describe = descriptors_for(image)
        kinds = [part.shape[1] for part in self.describe.parts(torch.zeros(1, 3, image.height, image.width))]
        found = sum(kinds)
        share = torch.cat([torch.full((count,), (count * len(kinds)) ** -0.5) for count in kinds])
        self.register_buffer("share", share, persistent=False)
        values = image.height * image.width * 3
        factors = torch.randint(2**31, (values,), generator=torch.Generator().manual_seed(_SEED))
        self.register_buffer("factors", factors, persistent=False)
        self.register_buffer("mean", torch.zeros(found))
        self.register_buffer("scale", torch.ones(found))
        self.register_buffer("anchors", torch.zeros(0, found))
        self.register_buffer("weights", torch.zeros(0, spec.labels))
        self.register_buffer("offset", torch.zeros(spec.labels))
        # For the run that studied alone: a resumed one studies again, and averaging weights would round keys.
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("left_out", torch.zeros(0, spec.labels), persistent=False)
        self.out = nn.Linear(spec.labels, spec.width)

    def forward(self, image: Tensor) -> Encoded:
        with torch.autocast(image.device.type, enabled=False), torch.no_grad():
            answers = self._unseen(image) if self.training else self.answers(image)
        said = self.out(answers)
        return Encoded(tokens=said.unsqueeze(1), pooled=said)

    def answers(self, image: Tensor) -> Tensor:
        """[rows, labels], about 1 where a label holds and 0 where it does not."""
        alike = self._alike(*(self._even(one) for one in self._described(image)))
        return self.offset + (alike @ self.weights.double()).float() / 2

    @torch.no_grad()
    def study(self, inputs: Sequence[tuple[Tensor, ...]], targets: Tensor, groups: Tensor) -> None:
        if len(targets) > _MOST:
            raise EncoderUnfit(
                f"a kernel machine keeps every training picture, {_MOST} at most, and there are "
                f"{len(targets)}. Use an encoder that learns by gradient descent, such as DescribedImage."
            )
        if targets.shape[1] != self.labels:
            raise EncoderUnfit(
                f"the kernel machine is made for {self.labels} labels, and rows have {targets.shape[1]}. "
                "Set 'labels' to their number."
            )
        both = [self._described(image) for (image,) in inputs]
        every = torch.cat([pair[side] for side in range(2) for pair in both])
        self.mean = every.mean(dim=0)
        self.scale = (every.var(dim=0, correction=0) + _RARE).rsqrt()
        self.anchors, self.keys = self._even(every), torch.cat([self._key(image) for (image,) in inputs])
        wanted = targets.double()
        share = wanted.mean(dim=0)
        alike = self._alike(*self.anchors.chunk(2)).view(len(wanted), 2, -1).mean(dim=1)
        inverse = torch.linalg.inv(alike + self.ridge * torch.eye(len(alike), dtype=torch.float64))
        weights = inverse @ (wanted - share)
        self.offset, self.weights = share.float(), weights.float().repeat(2, 1)
        self.left_out = (wanted - _residuals(inverse, weights, groups)).float()

    def _unseen(self, image: Tensor) -> Tensor:
        """As by a regression that has not seen the picture, nor others of its group."""
        same = self._key(image).unsqueeze(1) == self.keys
        known = same.any(dim=1)
        answers = self.offset.expand(len(image), -1).clone()
        answers[known] = self.left_out[same[known].long().argmax(dim=1)]
        if not bool(known.all()):
            answers[~known] = self.answers(image[~known])
        return answers

    def _described(self, image: Tensor) -> tuple[Tensor, Tensor]:
        ink = 1 - image.permute(0, 3, 1, 2).float() / 255
        return self.describe(ink), self.describe(ink.flip(3))

    def _even(self, described: Tensor) -> Tensor:
        """Squared distances between such rows are the mean over kinds of the mean over their numbers."""
        even = ((described - self.mean) * self.scale).clamp(-_FARTHEST, _FARTHEST)
        return even * self.share

    def _alike(self, seen: Tensor, mirrored: Tensor) -> Tensor:
        """Double [rows, 2 * pictures], between 0 and 2.

        Answers are sums of hundreds of likenesses with weights of both signs: in single precision two
        runtimes, which add up in other orders, would differ by 1e-5, and by ten times that behind a norm.
        """
        anchors = self.anchors.double()
        own = anchors.square().sum(dim=1)

        def near(x: Tensor) -> Tensor:
            apart = x.square().sum(dim=1, keepdim=True) + own - 2 * x @ anchors.T
            return torch.exp(-self.reach * apart.clamp(min=0))

        return near(seen.double()) + near(mirrored.double())

    def _key(self, image: Tensor) -> Tensor:
        """int64 [rows]. Products are below 2**39, so the sum over a picture is exact."""
        return (image.flatten(1).long() * self.factors).sum(dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """How many pictures there are is known from the weights alone."""
        for name in ("anchors", "weights"):
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _residuals(inverse: Tensor, weights: Tensor, groups: Tensor) -> Tensor:
    """Target less the answer of a regression without the item's group: double [items, labels].

    With G the group's rows, (inverse of H)[G, G] residual[G] = weights[G].
    """
    found = torch.empty_like(weights)
    for group in set(groups.tolist()):
        at = (groups == group).nonzero().squeeze(1)
        found[at] = torch.linalg.solve(inverse[at][:, at], weights[at])
    return found
