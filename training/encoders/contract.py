"""What every encoder promises, whatever it reads and wherever its weights come from.

Scaling, spectrograms and padding masks are inside an encoder, hence in the exported graphs, and a padded row
answers as it does alone. Inputs are as `app.bundle.manifest` tells them: image uint8 [rows, height, width,
3]; text int32 [rows, tokens]; audio float32 [rows, samples] with audio_length int32 [rows].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class EncoderUnfit(Exception):
    """The encoder and the manifest's numbers do not fit together; says which to change."""


class Encoded(NamedTuple):
    """tokens [rows, K, width]: K equal parts of a row in their order; pooled [rows, width]: the whole row.

    K is a number of the encoder, never of the row. With K = 1 the one token is the pooled vector.
    """

    tokens: Tensor
    pooled: Tensor


class Encoder(nn.Module):
    """Base of all encoders. `forward(*inputs)` gives Encoded.

    Both outputs come through the same parameters, so each trains all of them.
    """

    studies: ClassVar[bool] = False  # else `study` has nothing to do, and is not called
    leaves_out: ClassVar[bool] = False  # in training it answers an item as if its group had not been seen
    says_labels: ClassVar[bool] = False  # else `pooled` is the logits of the labels, and there is no head

    def __init__(self, *, width: int, tokens: int) -> None:
        super().__init__()
        self.width = width
        self.tokens = tokens

    def study(self, inputs: Sequence[tuple[Tensor, ...]], targets: Tensor, groups: Tensor) -> None:
        """Fit in closed form what gradient descent does not learn; the result is in buffers.

        `inputs` are the training items in batches, each once and unchanged; `targets` [items, labels] of 0
        and 1; `groups` int64 [items], what is not independent. Called before the first step.
        Raises EncoderUnfit.
        """

    @property
    def is_constant(self) -> bool:
        """Whether what it sees of an item never changes, so that it can be kept: see `see`."""
        return False

    def see(self, *inputs: Tensor) -> Tensor:
        """The first half of `forward`, where that is constant: [rows, …]."""
        raise NotImplementedError

    def read(self, seen: Tensor) -> Encoded:
        """The second half, from what `see` gave."""
        raise NotImplementedError

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Those that come trained and are to be tuned, usually at a lower learning rate."""
        yield from ()

    def own_parameters(self) -> Iterator[nn.Parameter]:
        """Those that start at random. Frozen ones are in neither list."""
        pretrained = {id(parameter) for parameter in self.pretrained_parameters()}
        for parameter in self.parameters():
            if parameter.requires_grad and id(parameter) not in pretrained:
                yield parameter
