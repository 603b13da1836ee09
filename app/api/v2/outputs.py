"""An inference answer: the rows' outputs as tensors or as named classes, in JSON or after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.api.errors import Refusal
from app.api.strict_json import JSON_VALUES
from app.api.v2.bodies import dump_json
from app.api.v2.requests import HEADER, SET_OUTPUT, Asked, WantedOutput, output_names
from app.api.v2.tensors import OutputDatatype, Tensor, datatype_of, to_binary, to_json
from app.bundle.interpret import RowOutputs
from app.bundle.manifest import Manifest
from app.runtime.errors import NonFiniteOutput


@dataclass(frozen=True, slots=True)
class Encoded:
    """A body and the headers that say how to read it."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What one row of an output is."""

    datatype: OutputDatatype
    dims: list[int]


def output_specs(manifest: Manifest) -> dict[str, OutputSpec]:
    """Of each output that the model has, in the order that they are sent in."""
    labels, modalities = len(manifest.labels), len(manifest.inputs.names)
    specs = {
        "probabilities": OutputSpec("FP32", [labels]),
        "logits": OutputSpec("FP32", [labels]),
        "embedding": OutputSpec("FP32", [manifest.fusion.embedding]),
        "modality_probabilities": OutputSpec("FP32", [modalities, labels]),
        SET_OUTPUT: OutputSpec("BOOL", [labels]),
    }
    return {name: specs[name] for name in output_names(manifest)}


def check_json_size(asked: Asked, manifest: Manifest) -> None:
    """Before anything runs. Raises Refusal bad_request if the answer would be too much JSON."""
    sizes = {name: math.prod(spec.dims) for name, spec in output_specs(manifest).items()}
    in_json = [wanted for wanted in asked.outputs if not wanted.is_binary]
    values = asked.rows * sum(min(wanted.classes or math.inf, sizes[wanted.name]) for wanted in in_json)
    if values > JSON_VALUES:
        message = (
            f"The answer has more than {JSON_VALUES} values in JSON. Ask for binary outputs, or for less."
        )
        raise Refusal("bad_request", message)


def encode_answer(asked: Asked, rows: Sequence[RowOutputs], manifest: Manifest) -> Encoded:
    """Raises NonFiniteOutput: JSON has no NaN, and a client has no use for one."""
    binary: list[bytes] = []
    outputs = [_output(wanted, rows, manifest.labels, binary) for wanted in asked.outputs]
    content = {"model_name": manifest.name, "model_version": str(manifest.version), "outputs": outputs}
    header = dump_json(content if asked.id is None else {**content, "id": asked.id})
    if not any(wanted.is_binary for wanted in asked.outputs):
        return Encoded(header, {"Content-Type": "application/json"})
    headers = {"Content-Type": "application/octet-stream", HEADER: str(len(header))}
    return Encoded(b"".join((header, *binary)), headers)


def _output(
    wanted: WantedOutput, rows: Sequence[RowOutputs], labels: Sequence[str], binary: list[bytes]
) -> dict[str, Any]:
    """One output's JSON; if it is binary, its bytes are added to `binary`."""
    tensor: Tensor = np.stack([getattr(row, wanted.name) for row in rows])
    if not np.isfinite(tensor).all():
        raise NonFiniteOutput
    if wanted.classes:
        tensor = _classes(tensor, labels if wanted.name != "embedding" else (), count=wanted.classes)
    described: dict[str, Any] = {
        "name": wanted.name,
        "datatype": datatype_of(tensor),
        "shape": list(tensor.shape),
    }
    if not wanted.is_binary:
        return {**described, "data": to_json(tensor)}
    data = to_binary(tensor)
    binary.append(data)
    return {**described, "parameters": {"binary_data_size": len(data)}}


def _classes(tensor: Tensor, labels: Sequence[str], *, count: int) -> Tensor:
    """BYTES [rows, count]: `value:index:label`, the highest value first, ties by index."""
    order = np.argsort(-tensor, axis=1, kind="stable")[:, :count]
    named = np.empty(order.shape, object)
    for row, best in enumerate(order):
        for place, index in enumerate(best):
            label = f":{labels[index]}" if labels else ""
            named[row, place] = f"{tensor[row, index]:f}:{index}{label}".encode()
    return named
