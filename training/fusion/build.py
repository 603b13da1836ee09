"""A fusion from its spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.bundle.manifest import MODALITIES, Modality, Task
from training.fusion.attention import Attention, Bottleneck
from training.fusion.contract import Fusion, FusionSpec, Method, Shape
from training.fusion.pooled import Concat, Film, Gated, Mean, Multiply, Sum
from training.fusion.prediction import LogLinear, MeanOfAnswers, ProductOfAnswers, Stacking, Weighted
from training.fusion.tensors import LowRank, TensorProduct

_Make = Callable[[FusionSpec, Shape], Fusion]

_OF_VECTORS: Final[dict[Method, _Make]] = {
    "concat": Concat,
    "multiply": Multiply,
    "sum": Sum,
    "mean": Mean,
    "gated": Gated,
    "low_rank": LowRank,
    "tensor": TensorProduct,
    "film": Film,
    "attention": Attention,
    "bottleneck": Bottleneck,
}
_OF_ANSWERS: Final[dict[Method, _Make]] = {
    "mean": MeanOfAnswers,
    "weighted": Weighted,
    "multiply": ProductOfAnswers,
    "log_linear": LogLinear,
    "stacking": Stacking,
}


def build_fusion(
    spec: FusionSpec,
    *,
    widths: tuple[int, ...],
    labels: int,
    task: Task,
    modalities: tuple[Modality, ...] = MODALITIES,
    answers: frozenset[Modality] = frozenset(),
    is_balanced: bool = False,
) -> Fusion:
    """`widths` are those of the encoders, in the order of `modalities`; the last two are of the shape.

    Raises ValueError.
    """
    if len(widths) != len(modalities):
        raise ValueError(f"{len(widths)} widths for {len(modalities)} modalities: one for each is wanted.")
    make = _OF_ANSWERS if spec.level == "prediction" else _OF_VECTORS
    return make[spec.method](spec, Shape(modalities, widths, labels, task, answers, is_balanced))
