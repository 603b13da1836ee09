"""What every fusion is made from, takes and gives, and the parts that all of them have.

Nothing here mixes modalities: that is pooled.py, tensors.py, attention.py and prediction.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import torch
from torch import Tensor, nn

from app.bundle.manifest import Modality, Task
from training.fusion.tower import Tower

Level = Literal["feature", "model", "prediction"]
Method = Literal[
    "concat", "multiply", "sum", "mean", "gated", "low_rank", "tensor", "film", "attention", "bottleneck",
    "weighted", "log_linear", "stacking",
]  # fmt: skip

_OF_VECTORS: Final[tuple[Method, ...]] = (
    "concat", "multiply", "sum", "mean", "gated", "low_rank", "tensor", "film", "attention", "bottleneck",
)  # fmt: skip
_METHODS: Final[dict[Level, tuple[Method, ...]]] = {
    "feature": _OF_VECTORS,
    "model": _OF_VECTORS,
    "prediction": ("mean", "weighted", "multiply", "log_linear", "stacking"),
}
OUT_OF_FOLD: Final[tuple[Method, ...]] = ("log_linear", "stacking")
"""So many numbers that `settle` wants training rows, answered by towers that never saw them."""
COMBINATIONS: Final[tuple[tuple[Level, Method], ...]] = tuple(
    (level, method) for level, methods in _METHODS.items() for method in methods
)


@dataclass(frozen=True, slots=True)
class Fused:
    """Raw scores, before any temperature."""

    logits: Tensor  # [rows, labels], from all modalities that are present
    embedding: Tensor  # [rows, embedding]
    modality_logits: Tensor  # [rows, modalities, labels], from each modality alone


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSpec:
    """Where modalities meet, and how.

    At feature level a modality is one projection of its encoding; at model level a network of its own follows
    the projection; at prediction level each modality answers alone and the answers meet. `width` is that of a
    projection. At prediction level the embedding is the mean of the projections, so both have one width.
    Raises ValueError.
    """

    level: Level
    method: Method
    width: int
    embedding: int
    dropout: float = 0.1
    rank: int = 8  # low_rank: terms in the sum
    tensor_width: int = 12  # tensor: what a projection is narrowed to; 13 ** 3 = 2,197 products
    bottlenecks: int = 4  # bottleneck: vectors through which the modalities exchange
    blocks: int = 2  # attention, bottleneck
    heads: int = 4  # attention, bottleneck
    conditioner: Modality = "text"  # film: the one that modulates the others

    def __post_init__(self) -> None:
        methods = _METHODS.get(self.level)
        if methods is None:
            raise ValueError(f"no level '{self.level}'. There are: {', '.join(_METHODS)}.")
        if self.method not in methods:
            raise ValueError(
                f"no method '{self.method}' at {self.level} level. There are: {', '.join(methods)}."
            )
        self._check_numbers()
        if self.level == "prediction" and self.embedding != self.width:
            raise ValueError(
                "at prediction level the embedding is the mean of the projections: set embedding to width, "
                f"{self.width}, not {self.embedding}."
            )
        if self.method in ("attention", "bottleneck") and self.width % self.heads != 0:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads.")
        if self.method == "bottleneck" and self.blocks < 2:
            raise ValueError("bottleneck needs 2 blocks: what one writes, the next one reads.")

    def _check_numbers(self) -> None:
        for name in ("width", "embedding", "rank", "tensor_width", "bottlenecks", "blocks", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}.")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a fusion stands between: the encoders and the labels."""

    modalities: tuple[Modality, ...]
    widths: tuple[int, ...]  # of what each encoder says, pooled or a token
    labels: int
    task: Task
    answers: frozenset[Modality] = frozenset()  # whose encoders give logits themselves: they have no head
    is_balanced: bool = False  # heads learn as if every class were as common as the others


class Fusion(nn.Module, ABC):
    """A tower and a head of its own for every modality; how they meet is the subclass's.

    A modality's own answer takes part in the training loss whatever the method: it keeps each tower useful.
    """

    reads_tokens: ClassVar[bool] = False  # else `tokens` is not looked at and may be ()
    is_joint: ClassVar[bool] = True  # else no parameter is trained through the joint answer
    needs_out_of_fold: ClassVar[bool] = False  # `settle` wants predictions of rows the towers never saw

    def __init__(self, spec: FusionSpec, shape: Shape) -> None:
        super().__init__()
        self.spec = spec
        self.shape = shape
        deep = spec.level == "model"
        self.towers = nn.ModuleList(
            [Tower(width, spec.width, deep=deep, dropout=spec.dropout) for width in shape.widths]
        )
        self.heads = nn.ModuleList(
            [
                nn.Identity() if name in shape.answers else nn.Linear(spec.width, shape.labels)
                for name in shape.modalities
            ]
        )

    @abstractmethod
    def forward(self, tokens: tuple[Tensor, ...], pooled: tuple[Tensor, ...], present: Tensor) -> Fused:
        """One answer a row, from what is there.

        `tokens` [rows, K, width] and `pooled` [rows, width] of each encoder; `present` bool
        [rows, modalities], at least one in every row. What stands where a modality is absent may be anything,
        NaN too.
        """

    def alone(self, pooled: tuple[Tensor, ...], present: Tensor) -> tuple[Tensor, Tensor]:
        """Of each modality by itself: what its tower says [rows, modalities, width], and its logits."""
        own = torch.stack(
            [
                tower(torch.where(present[:, at : at + 1], pooled[at], 0.0))
                for at, tower in enumerate(self.towers)
            ],
            dim=1,
        )
        said = torch.stack(
            [
                torch.where(present[:, at : at + 1], pooled[at], 0.0)
                if self.shape.modalities[at] in self.shape.answers
                else head(own[:, at])
                for at, head in enumerate(self.heads)
            ],
            dim=1,
        )
        return own, said

    def settle(self, modality_logits: Tensor, available: Tensor, targets: Tensor, *, seed: int) -> None:
        """Fit what is fitted on held-out predictions. The result is in buffers, hence in the state_dict.

        `modality_logits` [rows, modalities, labels]; `available` bool [rows, modalities]; `targets` int64
        [rows], or for several labels a row 0 or 1 [rows, labels]. The seed chooses rows where there are too
        many. Does nothing where all is learned by gradient descent.
        """
