"""One encoder's float32 graph to the same computation with smaller numbers.

int8, for CPUs: convolutions by static quantisation, activations as uint8 with ranges seen on training items,
weights as int8 with a scale for each channel. Weights use 7 of 8 bits: without VNNI a product of two pairs of
8-bit numbers overflows 16 bits and saturates, and such a processor would answer otherwise (measured on
`digits`: no slower, the error of features 0.9 % against 0.8 %). Ranges are the smallest and largest values
seen: entropy chose the same, percentiles did worse.

Dense layers and tables are stored as int8 and computed with as float32. Not by dynamic quantisation: it takes
its scale from the whole batch, so a row's answer depends on its neighbours (measured: a feature moved by
0.03 of 6), and not by static quantisation either: on `digits` it was slower and twice as wrong.

float16, for GPUs: all but the logarithmic spectrogram, exponentials, logarithms and normalisations.

What comes before a logarithm, the spectrogram, stays float32, and so does the convolution that reads an
image's or a recording's own values.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.quant_utils import QuantFormat, QuantType
from onnxruntime.quantization.quantize import quantize_static
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from app.bundle.manifest import Modality
from app.bundle.sample import Arrays
from training.batch import Stock
from training.export.packing import ancestors, pack, spell_out_waves

CALIBRATION_ITEMS: Final = 320
_AT_ONCE: Final = 32
INPUTS: Final[dict[Modality, tuple[str, ...]]] = {
    "image": ("image",), "text": ("text",), "audio": ("audio", "audio_length"),
}  # fmt: skip
_FLOAT32_TYPES: Final = (
    "Log",
    "Exp",
    "Softmax",
    "LayerNormalization",
    "ReduceMean",
    "Pow",
    "Sqrt",
    "Reciprocal",
)


def int8_encoder(graph: onnx.ModelProto, name: Modality, seen: list[Arrays]) -> onnx.ModelProto:
    """`seen` are batches of prepared training items."""
    exact = ancestors(graph, "Log")
    convolutions = [
        node.name for node in graph.graph.node if node.op_type == "Conv" and node.name not in exact
    ]
    first = convolutions[:1] if name != "text" else []  # of a text, the first one reads a table of vectors
    chosen = [one for one in convolutions if one not in first]
    made = _quantised(graph, chosen, seen) if chosen else _copy(graph)
    spell_out_waves(made)
    pack(made, stored="int8", kept=exact)
    return _finished(made, like=graph)


def float16_encoder(graph: onnx.ModelProto, name: Modality, seen: list[Arrays]) -> onnx.ModelProto:
    """Inputs and outputs stay float32; no items are looked at."""
    del name, seen
    exact = ancestors(graph, "Log")
    with _quiet():
        made = convert_float_to_float16(
            _copy(graph),
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FLOAT32_TYPES],
            node_block_list=sorted(exact),
        )
    ONNXModel(made).topological_sort()  # the converter puts casts last
    spell_out_waves(made)
    return _finished(made, like=graph)


def batches_of(stock: Stock, name: Modality, count: int) -> list[Arrays]:
    """Items spread over all `count`, as the graph reads them."""
    items = np.unique(np.linspace(0, count - 1, min(count, CALIBRATION_ITEMS)).astype(np.int64))
    return [_arrays(stock, name, items[at : at + _AT_ONCE]) for at in range(0, len(items), _AT_ONCE)]


def _arrays(stock: Stock, name: Modality, items: NDArray[np.int64]) -> Arrays:
    gathered = stock.gather(name, items)
    return {key: values.numpy() for key, values in zip(INPUTS[name], gathered, strict=True)}


def _quantised(graph: onnx.ModelProto, nodes: list[str], seen: list[Arrays]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "graph.onnx"
        quantize_static(
            _copy(graph),
            path,
            _Seen(seen),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(path)


class _Seen(CalibrationDataReader):  # type: ignore[misc]  # untyped library
    """Batches, one after the other, as the quantiser asks for them."""

    def __init__(self, batches: list[Arrays]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> Arrays | None:
        return next(self._rest, None)


def _finished(made: onnx.ModelProto, *, like: onnx.ModelProto) -> onnx.ModelProto:
    """Told as its original is, without shapes that no longer hold, and checked."""
    made.ir_version = like.ir_version
    made.producer_name, made.producer_version = like.producer_name, like.producer_version
    del made.graph.value_info[:]
    del made.metadata_props[:]
    onnx.checker.check_model(made)
    return made


def _copy(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The libraries change what they are given."""
    return onnx.load_from_string(graph.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser recommends, by the root logger, steps that the exporter has already done."""
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
