"""An encoder as one ONNX graph, run by the server's own session."""

from __future__ import annotations

import logging
import warnings
from typing import Final

import onnx
import torch
from torch import Tensor

from app.runtime.session import Device, open_session
from training.encoders.contract import Encoded, Encoder

_DYNAMIC: Final = {"text": {0: "batch", 1: "length"}, "audio": {0: "batch", 1: "length"}}


def assert_exports(encoder: Encoder, *batches: dict[str, Tensor], atol: float = 1e-4) -> None:
    """The graph answers as the encoder does. The first batch is the exporter's example."""
    graph = _graph(encoder, batches[0])
    # Control flow and sequences are slow, and other servers of ONNX graphs may not know them.
    assert not {node.op_type for node in graph.graph.node} & {"If", "Loop", "Scan", "SequenceEmpty"}
    session = open_session(graph.SerializeToString(), name="encoder", device=Device("cpu"), threads=1)
    for batch in batches:
        with torch.inference_mode():
            expected: Encoded = encoder(**batch)
        found = session.run({name: values.numpy() for name, values in batch.items()})
        for name, values in expected._asdict().items():
            torch.testing.assert_close(torch.from_numpy(found[name]), values, atol=atol, rtol=0)


def _graph(encoder: Encoder, example: dict[str, Tensor]) -> onnx.ModelProto:
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # the exporter's use of what torch has deprecated, and its surprise at inputs that share an axis
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*treespec, LeafSpec")
        warnings.filterwarnings("ignore", category=UserWarning, message="# The axis name: batch")
        program = torch.onnx.export(
            encoder.eval(),
            kwargs=example,
            dynamo=True,
            opset_version=20,
            external_data=False,
            dynamic_shapes={name: _DYNAMIC.get(name, {0: "batch"}) for name in example},
            input_names=list(example),
            output_names=list(Encoded._fields),
            verbose=False,
        )
    assert program is not None
    return program.model_proto
