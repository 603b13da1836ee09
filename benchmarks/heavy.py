"""A bundle whose image encoder is the bottleneck: the tests' tiny one with matrix products in it.

About 6 ms a row on one core, so that an overload is one of the model and not of the client beside it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx.numpy_helper
import onnx.parser

from tests import tiny

_WIDTH = 1024
_DEPTH = 8

# The products change the features by nothing that a float could show: answers stay those of tiny.
_GRAPH = """
g (uint8[rows,8,8,3] image) => (float[rows,3] features)
<int64[2] axes = {1, 2}, int64[2] last = {1, 2}, float scale = {255.0}, float nothing = {0.0},
 int64[3] flat = {0, 1, 192}, int64[3] tiles = {1, 48, 1}, int64[1] middle = {1}> {
    pixels = Cast <to = 1> (image)
    mean = ReduceMean <keepdims = 0> (pixels, axes)
    plain = Div (mean, scale)
    row = Reshape (pixels, flat)
    tall = Expand (row, tiles)
    x0 = MatMul (tall, enter)
PRODUCTS
    total = ReduceMean <keepdims = 0> (xDEPTH, last)
    share = Mul (total, nothing)
    column = Unsqueeze (share, middle)
    features = Add (plain, column)
}"""


def write_heavy(models_dir: Path) -> Path:
    """`models_dir/tiny/1`, ready to be served."""
    steps = [f"    y{i} = MatMul (x{i}, weight)\n    x{i + 1} = Tanh (y{i})" for i in range(_DEPTH)]
    text = _GRAPH.replace("PRODUCTS", "\n".join(steps)).replace("DEPTH", str(_DEPTH))
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]>\n' + text)
    rng = np.random.default_rng(0)
    for name, rows in (("enter", 192), ("weight", _WIDTH)):
        values = rng.normal(0, 0.01, (rows, _WIDTH)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    bundle = tiny.make()
    files = bundle.files | {"encoders/image.onnx": model.SerializeToString()}
    return tiny.write_files(models_dir, dataclasses.replace(bundle, files=files), files)
