"""Pictures by their likeness to every training picture, whichever way round they are."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from app.bundle.manifest import ImageInput
from training.encoders.contract import Encoded
from training.encoders.descriptors import descriptors_for
from training.encoders.kernel import key_factors
from training.encoders.kernel_near import NearnessEncoder
from training.encoders.specs import KernelImage


class KernelImageEncoder(NearnessEncoder):
    kept: ClassVar[str] = "picture"
    instead: ClassVar[str] = "DescribedImage"
    factors: Tensor

    def __init__(self, spec: KernelImage, image: ImageInput) -> None:
        describe = descriptors_for(image)
        blank = torch.zeros(1, 3, image.height, image.width)
        kinds = [part.shape[1] for part in describe.parts(blank)]
        super().__init__(width=spec.width, ridge=spec.ridge, reach=spec.reach, kinds=kinds)
        self.describe = describe
        self.register_buffer("factors", key_factors(blank.numel()), persistent=False)

    def forward(self, image: Tensor) -> Encoded:
        return self.said(image)

    def views(self, *inputs: Tensor) -> list[Tensor]:
        [image] = inputs
        ink = 1 - image.permute(0, 3, 1, 2).float() / 255
        both = self.describe(torch.stack([ink, ink.flip(3)]).flatten(0, 1))
        return list(both.unflatten(0, (2, image.shape[0])).unbind())

    def keys_of(self, *inputs: Tensor) -> Tensor:
        [image] = inputs
        return (image.flatten(1).long() * self.factors).sum(dim=1)
