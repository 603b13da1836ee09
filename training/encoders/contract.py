"""What every encoder promises, whatever it reads and wherever its weights come from.

Scaling, spectrograms and padding masks are inside an encoder, hence in the exported graphs, and a padded row
answers as it does alone. Inputs are as `app.bundle.manifest` tells them: image uint8 [rows, height, width,
3]; text int32 [rows, tokens]; audio float32 [rows, samples] with audio_length int32 [rows].
"""

from __future__ import annotations

from collections.abc import Iterator
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

    remembers: ClassVar[bool] = False  # else `remember` is not asked for
    answers: ClassVar[bool] = False  # else `pooled` is no log share of each label, and a head has to answer

    def __init__(self, *, width: int, tokens: int) -> None:
        super().__init__()
        self.width = width
        self.tokens = tokens

    def remember(self, inputs: tuple[Tensor, ...], targets: Tensor, groups: Tensor) -> None:
        """Take in the training items, each once, before they are trained on; for encoders that compare.

        `inputs` as `forward` reads them, `targets` int64 [items] or float32 [items, labels], `groups` int64
        [items]. What is remembered is in buffers, hence in the state_dict. Raises EncoderUnfit.
        """
        raise NotImplementedError(f"{type(self).__name__} remembers nothing")

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Those that come trained and are to be tuned, usually at a lower learning rate."""
        yield from ()

    def own_parameters(self) -> Iterator[nn.Parameter]:
        """Those that start at random. Frozen ones are in neither list."""
        pretrained = {id(parameter) for parameter in self.pretrained_parameters()}
        for parameter in self.parameters():
            if parameter.requires_grad and id(parameter) not in pretrained:
                yield parameter
