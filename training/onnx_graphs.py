"""A model to the five ONNX graphs of a bundle, every one a single file with a dynamic batch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import onnx
import torch
from torch import Tensor, nn

from app.bundle.manifest import Inputs
from training.model import Answering, Answers, Fusing, Model

FUSION_FILE: Final = "fusion.onnx"
FUSED_FILE: Final = "fused.onnx"
_OPSET: Final = 20  # STFT 17, LayerNormalization 17, Gelu 20
_ROWS: Final = 3  # of the example inputs; the batch dimension is checked to be free of it
_ANSWERS: Final = Answers._fields
_DYNAMIC: Final = {"text": {0: "batch", 1: "tokens"}, "audio": {0: "batch", 1: "samples"}}


class GraphFrozen(Exception):
    """The exporter fixed a dimension that must stay free."""


def export_graphs(model: Model, inputs: Inputs) -> dict[str, bytes]:
    """Path in the bundle to the graph's bytes. Raises GraphFrozen."""
    prepared = _example_inputs(inputs)
    present = {"present": torch.tensor([[True, True, True], [True, False, True], [False, True, False]])}
    features = {
        f"{name}_features": torch.randn(_ROWS, inputs.encoder(name).features) for name in inputs.names
    }
    arguments = {
        "image": {"image": prepared["image"]},
        "text": {"text": prepared["text"]},
        "audio": {"audio": prepared["audio"], "audio_length": prepared["audio_length"]},
    }
    graphs = {
        inputs.encoder(name).encoder: _export(getattr(model, name), arguments[name], ("features",))
        for name in inputs.names
    }
    graphs[FUSION_FILE] = _export(Fusing(model), {**features, **present}, _ANSWERS)
    graphs[FUSED_FILE] = _export(Answering(model), {**prepared, **present}, _ANSWERS)
    return graphs


def _example_inputs(inputs: Inputs) -> dict[str, Tensor]:
    """Distinct tensors: the exporter merges inputs that are the same object into one."""
    image, audio = inputs.image, inputs.audio
    assert image is not None
    assert audio is not None
    lengths = torch.tensor([audio.min_samples, 2 * audio.min_samples, 3 * audio.min_samples])
    return {
        "image": torch.randint(256, (_ROWS, image.height, image.width, 3), dtype=torch.uint8),
        "text": torch.randint(1, 9, (_ROWS, 7), dtype=torch.int32),
        "audio": torch.randn(_ROWS, 3 * audio.min_samples),
        "audio_length": lengths.to(torch.int32),
    }


def _export(module: nn.Module, arguments: dict[str, Tensor], outputs: tuple[str, ...]) -> bytes:
    dynamic = {name: _DYNAMIC.get(name, {0: "batch"}) for name in arguments}
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            kwargs=arguments,
            dynamo=True,
            opset_version=_OPSET,
            external_data=False,
            dynamic_shapes=dynamic,
            input_names=list(arguments),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    model = program.model_proto
    _forget_origin(model)
    _check(model, dynamic, outputs)
    return bytes(model.SerializeToString())


def _forget_origin(model: onnx.ModelProto) -> None:
    """The exporter notes for every node where in the source it comes from: paths of this machine."""
    assert not model.functions, "the exporter inlines its functions"
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, model.graph, model):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _check(model: onnx.ModelProto, dynamic: dict[str, dict[int, str]], outputs: tuple[str, ...]) -> None:
    """Raises GraphFrozen; a frozen dimension exports without any complaint."""
    onnx.checker.check_model(model)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == _OPSET
    found = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    found |= {value.name: value.type.tensor_type.shape.dim for value in model.graph.output}
    wanted = dynamic | {name: {0: "batch"} for name in outputs}
    for name, dimensions in wanted.items():
        for axis, symbol in dimensions.items():
            if found[name][axis].dim_param != symbol:
                raise GraphFrozen(
                    f"dimension {axis} of '{name}' was exported as fixed, not as '{symbol}'. Look for a "
                    "shape that the model reads as a number."
                )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter talks about its own internals; what matters is checked afterwards."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch's own use of what torch has deprecated
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*treespec, LeafSpec")
        # every input shares the axis "batch", which is what is wanted
        warnings.filterwarnings("ignore", category=UserWarning, message="# The axis name: batch")
        try:
            yield
        finally:
            log.setLevel(level)
