"""A model to the ONNX graphs of a bundle, every one a single file with a dynamic batch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from app.bundle.manifest import Inputs, Modality
from training.model import Answers, Encoding, Fusing, Model

FUSION_FILE: Final = "fusion.onnx"
FUSED_FILE: Final = "fused.onnx"
_OPSET: Final = 20  # STFT 17, LayerNormalization 17, Gelu 20
_ROWS: Final = 3  # of the example inputs; the batch dimension is checked to be free of it
_LENGTHS: Final = {"text": "tokens", "audio": "samples"}  # of the inputs whose second dimension is free

Axes = dict[int, str]


class GraphFrozen(Exception):
    """The exporter fixed a dimension that must stay free."""


def export_graphs(model: Model, inputs: Inputs) -> dict[str, bytes]:
    """Path in the bundle to the graph's bytes. Raises GraphFrozen."""
    return joined_graphs(encoder_graphs(model, inputs), fusion_graph(model), inputs)


def joined_graphs(
    encoders: Mapping[Modality, onnx.ModelProto], fusion: onnx.ModelProto, inputs: Inputs
) -> dict[str, bytes]:
    """Path in the bundle to the graph's bytes, the fused one too."""
    graphs = {inputs.encoder(name).encoder: graph.SerializeToString() for name, graph in encoders.items()}
    return {
        **graphs,
        FUSION_FILE: fusion.SerializeToString(),
        FUSED_FILE: fused_graph(encoders, fusion).SerializeToString(),
    }


def encoder_graphs(model: Model, inputs: Inputs) -> dict[Modality, onnx.ModelProto]:
    return {name: _encoder_graph(model, name, inputs) for name in model.names}


def fusion_graph(model: Model) -> onnx.ModelProto:
    features = {f"{name}_features": torch.randn(_ROWS, model.feature_width(name)) for name in model.names}
    masks = [[(row + at) % 2 == 0 or row == 0 for at in range(len(model.names))] for row in range(_ROWS)]
    present = torch.tensor(masks) if len(model.names) > 1 else torch.ones(_ROWS, 1, dtype=torch.bool)
    return _export(
        Fusing(model),
        (tuple(features.values()), present),
        {name: {0: "batch"} for name in (*features, "present")},
        answers_of(model),
    )


def answers_of(model: Model) -> tuple[str, ...]:
    """Names of the outputs, in order."""
    return tuple(name for name in Answers._fields if name != "prediction_set" or model.sets is not None)


def fused_graph(encoders: Mapping[Modality, onnx.ModelProto], fusion: onnx.ModelProto) -> onnx.ModelProto:
    """The same computation as one graph: the encoders' outputs are the fusion's inputs."""
    joined = compose.add_prefix(fusion, "fusion/", rename_inputs=False, rename_outputs=False)
    for name, encoder in encoders.items():
        own = compose.add_prefix(encoder, f"{name}/", rename_inputs=False)
        link = [(f"{name}/features", f"{name}_features")]
        joined = compose.merge_models(own, joined, io_map=link)
    onnx.checker.check_model(joined)
    return joined


def _encoder_graph(model: Model, name: Modality, inputs: Inputs) -> onnx.ModelProto:
    examples = _examples(name, inputs)
    axes: dict[str, Axes] = {
        given: {0: "batch", 1: _LENGTHS[given]} if given in _LENGTHS else {0: "batch"} for given in examples
    }
    return _export(Encoding(model, name), (tuple(examples.values()),), axes, ("features",))


def _examples(name: Modality, inputs: Inputs) -> dict[str, Tensor]:
    if name == "image":
        assert inputs.image is not None
        shape = (_ROWS, inputs.image.height, inputs.image.width, 3)
        return {"image": torch.randint(256, shape, dtype=torch.uint8)}
    if name == "text":
        return {"text": torch.randint(1, 9, (_ROWS, 7), dtype=torch.int32)}
    assert inputs.audio is not None
    least = inputs.audio.min_samples
    return {
        "audio": torch.randn(_ROWS, 3 * least),
        "audio_length": torch.tensor([least, 2 * least, 3 * least], dtype=torch.int32),
    }


def _export(
    module: nn.Module, arguments: tuple[Any, ...], axes: dict[str, Axes], outputs: tuple[str, ...]
) -> onnx.ModelProto:
    """`axes` names the inputs in order, with their free dimensions."""
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            args=arguments,
            dynamo=True,
            opset_version=_OPSET,
            external_data=False,
            dynamic_shapes=_nested(arguments, iter(axes.values())),
            input_names=list(axes),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None, "the dynamo exporter returns a program"
    model = program.model_proto
    _forget_origin(model)
    _check(model, axes, outputs)
    return model


def _nested(arguments: tuple[Any, ...], axes: Iterator[Axes]) -> tuple[Any, ...]:
    """The axes in the shape of the arguments."""
    return tuple(_nested(one, axes) if isinstance(one, tuple) else next(axes) for one in arguments)


def _forget_origin(model: onnx.ModelProto) -> None:
    """The exporter notes for every node where in the source it comes from: paths of this machine."""
    assert not model.functions, "the exporter inlines its functions"
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, model.graph, model):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _check(model: onnx.ModelProto, axes: dict[str, Axes], outputs: tuple[str, ...]) -> None:
    """Raises GraphFrozen; a frozen dimension exports without any complaint."""
    onnx.checker.check_model(model)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == _OPSET
    found = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    found |= {value.name: value.type.tensor_type.shape.dim for value in model.graph.output}
    wanted = axes | {name: {0: "batch"} for name in outputs}
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
