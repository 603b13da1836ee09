"""Torch and ONNX Runtime give the same answers, for every subset and several batches."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from app.runtime.session import Device, Session, open_session
from tests.training.fusion.made import SUBSETS, Said, all_subsets, ask, make, parts, say
from training.fusion.contract import COMBINATIONS, Fused, Fusion, Level, Method, Task

OUTPUTS = ("logits", "embedding", "modality_logits")
CASES: list[tuple[Level, Method, Task]] = [
    *((level, method, "classification") for level, method in COMBINATIONS),
    ("prediction", "mean", "multilabel"),  # the others pool as one of these two
    ("prediction", "stacking", "multilabel"),
]
EVERY_DAY = {  # of exports, which take seconds each: what reads tokens, and what is not sums and products
    ("feature", "attention"), ("feature", "low_rank"), ("model", "bottleneck"), ("model", "film"),
    ("model", "tensor"), ("prediction", "stacking"),
}  # fmt: skip


class Flat(nn.Module):
    """A fusion whose inputs and outputs all have a name."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *said, present = inputs
        tokens, pooled = tuple(said[:-3]), tuple(said[-3:])
        return parts(self.fusion(tokens, pooled, present))


def inputs_of(fusion: Fusion, said: Said, present: Tensor) -> dict[str, Tensor]:
    tokens = said.tokens if fusion.reads_tokens else ()
    named = {f"tokens_{at}": x for at, x in enumerate(tokens)}
    return {**named, **{f"pooled_{at}": x for at, x in enumerate(said.pooled)}, "present": present}


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter warns of its own internals, and that every input shares the axis `batch`."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*treespec, LeafSpec")
        warnings.filterwarnings("ignore", category=UserWarning, message="# The axis name: batch")
        try:
            yield
        finally:
            log.setLevel(level)


def exported(fusion: Fusion) -> Session:
    inputs = inputs_of(fusion, say(3), all_subsets(3))
    with quiet():
        program = torch.onnx.export(
            Flat(fusion).eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=20,
            external_data=False,
            dynamic_shapes=(tuple({0: "batch"} for _ in inputs),),
            input_names=list(inputs),
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    onnx.checker.check_model(graph)
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch", value.name
    return open_session(graph.SerializeToString(), name="fusion", device=Device("cpu"), threads=1)


def assert_same(session: Session, fusion: Fusion, said: Said, present: Tensor, expected: Fused) -> None:
    found = session.run({name: x.numpy() for name, x in inputs_of(fusion, said, present).items()})
    for name, values in zip(OUTPUTS, parts(expected), strict=True):
        np.testing.assert_allclose(found[name], values.numpy(), atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.parametrize(
    ("level", "method", "task"),
    [
        case
        if case[:2] in EVERY_DAY and case[2] == "classification"
        else pytest.param(*case, marks=pytest.mark.thorough)
        for case in CASES
    ],
)
def test_the_exported_graph_answers_as_torch(level: Level, method: Method, task: Task) -> None:
    fusion = make(level, method, task=task, blocks=1 if method == "attention" else 2)  # exporting takes long
    session = exported(fusion)
    for rows in (1, 2, 5, 64):
        said = say(rows, seed=rows)
        for subset in SUBSETS:
            present = torch.tensor([subset] * rows)
            assert_same(session, fusion, said, present, ask(fusion, said, present))
    # A batch of all subsets, with what cannot be computed with in the place of what is absent.
    said, present = say(14), all_subsets(14)
    assert_same(session, fusion, said.spoiled(present, float("nan")), present, ask(fusion, said, present))
