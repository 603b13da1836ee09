"""Weights of an ONNX graph kept in fewer bytes, and computed with as float32.

An unpacking is a Cast, or a Cast and a Mul, of constants: ONNX Runtime does it once, when it loads the graph,
so it costs a run nothing. What rounding costs is whatever the gates of a variant measure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Stored = Literal["int8", "float16"]

LEAST: Final = 1_024  # numbers: a smaller array stays as it is
LOSSLESS: Final = 1e-6  # of the largest number in an array: rounding of float32 itself
_INT8: Final = 127  # symmetric: -128 is not used
_EXACT: Final = 1e-7  # a windowed wave that is worked out again in float64 and rounded to float32

Floats = NDArray[np.float32]


def rounded(weights: Floats, *, axis: int, stored: Stored) -> Floats:
    """The nearest numbers that can be stored: with int8, one scale for each place of `axis`."""
    if stored == "float16":
        return weights.astype(np.float16).astype(np.float32)
    numbers, scales = _on_grid(weights, axis)
    return numbers.astype(np.float32) * scales


def pack(
    graph: onnx.ModelProto, *, stored: Stored, kept: frozenset[str] = frozenset(), most_loss: float = math.inf
) -> None:
    """Store large weights of Gather, MatMul and Gemm in place, but for nodes named in `kept`.

    `most_loss` is how far a number may move, as a share of the largest of its array; an array that would
    lose more stays as it is.
    """
    arrays = {tensor.name: tensor for tensor in graph.graph.initializer}
    axes: dict[str, int | None] = {}
    for node in graph.graph.node:
        for at, name in enumerate(node.input):
            if name in arrays:
                axis = None if node.name in kept else _axis(node, at, len(arrays[name].dims))
                axes[name] = axis if axes.get(name, axis) == axis else None  # two readings of one array
    for name, axis in axes.items():
        tensor = arrays[name]
        if axis is None or tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < LEAST:
            continue
        weights = numpy_helper.to_array(tensor).astype(np.float32)
        loss = np.abs(rounded(weights, axis=axis, stored=stored) - weights).max()
        if loss <= most_loss * np.abs(weights).max():
            _replace(graph, tensor, list(_unpacking(weights, name, axis=axis, stored=stored)))


def spell_out_waves(graph: onnx.ModelProto) -> int:
    """Windowed Fourier kernels worked out at loading from one table of a cosine, in place.

    A kernel is [2 * (size / 2 + 1), 1, window], as training/encoders/spectrogram.py makes it. Returns how
    many were found: what is not such a kernel to the last bit of float32 or nearly stays as it is.
    """
    found = 0
    for tensor in list(graph.graph.initializer):
        dims = list(tensor.dims)
        if tensor.data_type != TensorProto.FLOAT or len(dims) != 3 or dims[1] != 1 or dims[0] % 2:
            continue
        size = dims[0] - 2  # size / 2 + 1 bins, each a cosine and a sine
        if size < dims[2] or size % 4:
            continue
        parts = _Waves.of(size=size, window=dims[2])
        if np.abs(parts.kernel() - numpy_helper.to_array(tensor)).max() <= _EXACT:
            _replace(graph, tensor, list(parts.nodes(tensor.name)))
            found += 1
    return found


def ancestors(graph: onnx.ModelProto, op_type: str) -> frozenset[str]:
    """Names of all nodes that a node of this type hears, and of itself."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    waiting = [node for node in graph.graph.node if node.op_type == op_type]
    found: dict[str, onnx.NodeProto] = {}
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found[node.name] = node
            waiting += [makers[name] for name in node.input if name in makers]
    return frozenset(found)


class _Waves:
    """cos(2 pi k n / size) and sin(...), both read from one turn of a cosine by whole numbers."""

    def __init__(self, *, turn: NDArray[np.float64], hann: NDArray[np.float64], bins: int) -> None:
        self.turn, self.hann, self.bins = turn, hann, bins
        self.steps = np.tile(np.arange(bins, dtype=np.int32), 2)[:, None]
        quarter = 3 * len(turn) // 4  # a sine is a cosine three quarters of a turn later
        self.shift = np.repeat(np.array([0, quarter], np.int32), bins)[:, None]
        self.times = np.arange(len(hann), dtype=np.int32)[None, :]

    @classmethod
    def of(cls, *, size: int, window: int) -> _Waves:
        turn = np.cos(2 * np.pi * np.arange(size) / size)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        return cls(turn=turn, hann=hann, bins=size // 2 + 1)

    def kernel(self) -> Floats:
        at = (self.steps * self.times + self.shift) % len(self.turn)
        windowed: Floats = (self.turn[at] * self.hann).astype(np.float32)
        return windowed[:, None, :]

    def nodes(self, name: str) -> Iterator[TensorProto | onnx.NodeProto]:
        """The same in ONNX, ending in an array of the kernel's name."""

        def array(part: str, values: NDArray[np.generic]) -> TensorProto:
            return numpy_helper.from_array(values, f"{name}/{part}")

        def node(
            op_type: str, inputs: tuple[str, ...], output: str, *, to: int | None = None
        ) -> onnx.NodeProto:
            return _node(op_type, [f"{name}/{part}" for part in inputs], f"{name}/{output}", to=to)

        yield array("steps", self.steps)
        yield array("times", self.times)
        yield array("shift", self.shift)
        yield array("size", np.array(len(self.turn), np.int32))
        yield array("turn", self.turn)
        yield array("hann", self.hann)
        yield array("one", np.array([1], np.int64))
        yield node("Mul", ("steps", "times"), "product")
        yield node("Add", ("product", "shift"), "sum")
        yield node("Mod", ("sum", "size"), "at")
        yield node("Gather", ("turn", "at"), "waves")
        yield node("Mul", ("waves", "hann"), "windowed")
        yield node("Cast", ("windowed",), "flat", to=TensorProto.FLOAT)
        yield _node("Unsqueeze", [f"{name}/flat", f"{name}/one"], name)


def _axis(node: onnx.NodeProto, at: int, dimensions: int) -> int | None:
    """Along which an array that this node reads may be scaled; None where it must not be touched."""
    if node.op_type == "Gather":
        return 0 if at == 0 and dimensions == 2 and _attribute(node, "axis") == 0 else None
    if node.op_type == "MatMul":
        return dimensions - 1 if at == 1 and dimensions > 1 else None
    if node.op_type == "Gemm":
        return (0 if _attribute(node, "transB") else 1) if at == 1 else None
    return None


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((one.i for one in node.attribute if one.name == name), 0)


def _on_grid(weights: Floats, axis: int) -> tuple[NDArray[np.int8], Floats]:
    others = tuple(at for at in range(weights.ndim) if at != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scales = np.maximum(largest / _INT8, np.finfo(np.float32).tiny)  # of a place with nothing but zeros, too
    return np.rint(weights / scales).clip(-_INT8, _INT8).astype(np.int8), scales


def _unpacking(
    weights: Floats, name: str, *, axis: int, stored: Stored
) -> Iterator[TensorProto | onnx.NodeProto]:
    packed = f"{name}/packed"
    if stored == "float16":
        yield numpy_helper.from_array(weights.astype(np.float16), packed)
        yield _node("Cast", [packed], name, to=TensorProto.FLOAT)
        return
    numbers, scales = _on_grid(weights, axis)
    yield numpy_helper.from_array(numbers, packed)
    yield numpy_helper.from_array(scales, f"{name}/scale")
    yield _node("Cast", [packed], f"{name}/numbers", to=TensorProto.FLOAT)
    yield _node("Mul", [f"{name}/numbers", f"{name}/scale"], name)


def _node(op_type: str, inputs: list[str], output: str, *, to: int | None = None) -> onnx.NodeProto:
    """`to` is the type that a Cast gives."""
    attributes: dict[str, Any] = {} if to is None else {"to": to}
    return helper.make_node(op_type, inputs, [output], name=f"{output}/{op_type}", **attributes)


def _replace(graph: onnx.ModelProto, tensor: TensorProto, by: list[TensorProto | onnx.NodeProto]) -> None:
    """Nodes are put first: a graph lists what is made before what reads it."""
    graph.graph.initializer.remove(tensor)
    graph.graph.initializer.extend(one for one in by if isinstance(one, TensorProto))
    first = [one for one in by if isinstance(one, onnx.NodeProto)]
    rest = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*first, *rest])
