"""One ONNX graph on one device. The only file that knows ONNX Runtime.

Providers and threads are explicit: ONNX Runtime's defaults fall back to another device in silence and
let idle threads spin.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# ONNX Runtime's wheels send usage data to their maker unless told not to before they load.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251 - said to a library, not read

import onnxruntime

from app.bundle.sample import Arrays
from app.runtime.errors import DeviceUnavailable, GraphInvalid, RunFailed

_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",  # exhaustive search stalls at every new batch shape
    "arena_extend_strategy": "kSameAsRequested",  # doubling wastes memory with shapes that vary
}


class Session(Protocol):
    """A graph that runs."""

    def run(self, inputs: Arrays) -> Arrays:
        """Raises GraphInvalid or RunFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Device:
    """Where graphs run. `index` counts CUDA devices."""

    kind: str  # "cpu" or "cuda"
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


def find_device(wanted: str) -> Device:
    """`cpu`, `cuda`, `cuda:N`, or `auto`: CUDA if this installation has it, else the CPU.

    Raises DeviceUnavailable if a device asked for by name is not there.
    """
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if wanted == "cpu" or (wanted == "auto" and not has_cuda):
        return Device("cpu")
    kind, _, index = wanted.partition(":")
    if kind not in ("auto", "cuda") or not _is_number(index or "0"):
        raise DeviceUnavailable(f"'{wanted}' is not a device. Use auto, cpu, cuda or cuda:N.")
    if not has_cuda:
        raise DeviceUnavailable(
            f"{wanted} was asked for, but this ONNX Runtime has no CUDA. Install trichord[gpu] instead of "
            "trichord[cpu], or set the device to cpu."
        )
    return Device("cuda", int(index or 0))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def open_session(graph: bytes, *, name: str, device: Device, threads: int) -> Session:
    """Load a graph from bytes that were verified.

    `name` is the file in the bundle, for messages; `threads` run one operator on the CPU.
    Raises GraphInvalid or DeviceUnavailable.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads if device.kind == "cpu" else 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # patterns are kept per shape, and shapes vary with every batch
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=_providers(device))
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise GraphInvalid(
            f"{name}: ONNX Runtime cannot load this graph on {device}: {_first_line(error)}"
        ) from error
    _refuse_fallback(session, device)
    session.disable_fallback()  # which would go on, on the CPU, when a run on the GPU fails
    return _OrtSession(session, name)


def _providers(device: Device) -> list[Any]:
    if device.kind == "cpu":
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()  # CUDA and cuDNN as pip installs them, without LD_LIBRARY_PATH
    return [
        ("CUDAExecutionProvider", {"device_id": str(device.index), **_CUDA_OPTIONS}),
        "CPUExecutionProvider",
    ]


def _refuse_fallback(session: Any, device: Device) -> None:
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device.kind]
    if session.get_providers()[0] != wanted:
        raise DeviceUnavailable(
            f"{device} was asked for, but ONNX Runtime could not start it. Check the NVIDIA driver "
            "(580 or newer) and that the device is visible, or set the device to cpu."
        )


class _OrtSession:
    def __init__(self, session: Any, name: str) -> None:
        self._session = session
        self._name = name
        self._outputs = [output.name for output in session.get_outputs()]
        self._inputs = {value.name for value in session.get_inputs()}

    def run(self, inputs: Arrays) -> Arrays:
        if inputs.keys() != self._inputs:
            raise GraphInvalid(
                f"{self._name}: the graph's inputs are {sorted(self._inputs)}, not {sorted(inputs)}."
            )
        try:
            values: list[NDArray[np.generic]] = self._session.run(self._outputs, inputs)
        except Exception as error:  # as above: no base class, and ValueError for inputs of another type
            raise RunFailed(
                f"{self._name}: ONNX Runtime cannot run this graph: {_first_line(error)}"
            ) from error
        return dict(zip(self._outputs, values, strict=True))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
