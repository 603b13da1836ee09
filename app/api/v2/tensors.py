"""Tensors as they travel: in JSON, flat or nested, and as raw bytes, little-endian and row-major.

Datatypes are those that this server's inputs and outputs have: UINT8, INT32, FP32, BYTES, whose elements
are byte strings, and BOOL, which only outputs have. In Python a tensor is an array; one of
BYTES holds `bytes` objects.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

InputDatatype = Literal["BYTES", "UINT8", "INT32", "FP32"]
OutputDatatype = Literal["BYTES", "FP32", "BOOL"]
Datatype = InputDatatype | OutputDatatype
Tensor = NDArray[Any]

DTYPES: Final[Mapping[Datatype, np.dtype[Any]]] = MappingProxyType(
    {
        "BYTES": np.dtype(object),
        "UINT8": np.dtype("u1"),
        "INT32": np.dtype("<i4"),
        "FP32": np.dtype("<f4"),
        "BOOL": np.dtype("?"),
    }
)
_LENGTH: Final = struct.Struct("<I")


class Malformed(ValueError):
    """Data that is not a tensor of the shape and datatype it claims. The message is a clause."""


def datatype_of(tensor: Tensor) -> Datatype:
    return next(name for name, dtype in DTYPES.items() if dtype == tensor.dtype)


# --- JSON -------------------------------------------------------------------------------------


def from_json(data: list[Any], shape: Sequence[int], datatype: InputDatatype, *, is_base64: bool) -> Tensor:
    """Raises Malformed: ragged or of another size, or values that are not of the datatype."""
    values = _flattened(data, shape)
    if datatype == "BYTES":
        return _objects((_encoded(value, is_base64=is_base64) for value in values), shape)
    kinds = set(map(type, values))
    if datatype == "FP32":
        return _floats(values, kinds).reshape(shape)
    limits = np.iinfo(DTYPES[datatype])
    if kinds != {int} or min(values) < limits.min or max(values) > limits.max:
        raise Malformed(f"{datatype} data are whole numbers from {limits.min} to {limits.max}")
    return np.array(values, DTYPES[datatype]).reshape(shape)


def to_json(tensor: Tensor) -> list[Any]:
    """Flat. BYTES must hold UTF-8."""
    if tensor.dtype == object:
        return [value.decode() for value in tensor.ravel()]
    flat: list[Any] = tensor.ravel().tolist()
    return flat


def _flattened(data: list[Any], shape: Sequence[int]) -> list[Any]:
    is_nested = bool(data) and isinstance(data[0], list)
    sizes = shape if is_nested else [math.prod(shape)]
    level: list[Any] = [data]
    for size in sizes:
        if any(not isinstance(inner, list) or len(inner) != size for inner in level):
            raise Malformed("the data do not fill the shape")
        level = [value for inner in level for value in inner]
    return level


def _floats(values: list[Any], kinds: set[type]) -> NDArray[np.float32]:
    if not kinds <= {int, float}:
        raise Malformed("FP32 data are numbers")
    try:
        with np.errstate(over="ignore"):  # what overflows is found below
            floats = np.array(values, np.float64).astype(DTYPES["FP32"])
    except OverflowError:  # an integer beyond any float
        floats = np.array([np.inf], np.float32)
    if not np.isfinite(floats).all():
        raise Malformed("FP32 data are finite numbers")
    return floats


def _encoded(value: object, *, is_base64: bool) -> bytes:
    if not isinstance(value, str):
        raise Malformed("BYTES data are strings")
    try:
        return base64.b64decode(value, validate=True) if is_base64 else value.encode()
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        what = "base64 in JSON; or send them binary" if is_base64 else "Unicode text"
        raise Malformed(f"its data are {what}") from error


# --- binary -----------------------------------------------------------------------------------


def from_binary(body: memoryview, shape: Sequence[int], datatype: InputDatatype) -> Tensor:
    """Raises Malformed: another number of bytes or elements than the shape says."""
    if datatype == "BYTES":
        return _objects(_elements(body, math.prod(shape)), shape)
    if len(body) != math.prod(shape) * DTYPES[datatype].itemsize:
        raise Malformed("the number of bytes is not that of the shape")
    return np.frombuffer(body, DTYPES[datatype]).reshape(shape)


def to_binary(tensor: Tensor) -> bytes:
    if tensor.dtype == object:
        return b"".join(_LENGTH.pack(len(value)) + value for value in tensor.ravel())
    return tensor.tobytes()


def _elements(body: memoryview, count: int) -> Iterable[bytes]:
    start = 0
    for _ in range(count):
        if start + _LENGTH.size > len(body):
            raise Malformed("there are fewer elements than the shape says")
        [length] = _LENGTH.unpack_from(body, start)
        start += _LENGTH.size
        if start + length > len(body):
            raise Malformed("an element runs past the end")
        yield bytes(body[start : start + length])
        start += length
    if start != len(body):
        raise Malformed("there are more bytes than the shape says")


def _objects(values: Iterable[bytes], shape: Sequence[int]) -> Tensor:
    elements = list(values)  # before there is an array: a shape may claim anything
    tensor = np.empty(len(elements), object)
    tensor[:] = elements
    return tensor.reshape(shape)
