"""Tensors survive JSON and raw bytes, and what is not a tensor is refused in words."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.api.v2.tensors import (
    DTYPES,
    Datatype,
    Malformed,
    Tensor,
    datatype_of,
    from_binary,
    from_json,
    to_binary,
    to_json,
)

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)


def tensors(elements: st.SearchStrategy[bytes]) -> st.SearchStrategy[Tensor]:
    numbers = st.sampled_from(["UINT8", "INT32", "FP32"]).flatmap(
        lambda datatype: arrays.arrays(
            DTYPES[datatype],
            SHAPES,
            elements={"allow_nan": False, "allow_infinity": False} if datatype == "FP32" else None,
        )
    )
    return numbers | arrays.arrays(np.dtype(object), SHAPES, elements=elements)


@given(tensors(st.binary(max_size=20)))
def test_binary_round_trip(tensor: Tensor) -> None:
    datatype = datatype_of(tensor)
    read = from_binary(memoryview(to_binary(tensor)), tensor.shape, datatype)
    assert read.dtype == tensor.dtype
    np.testing.assert_array_equal(read, tensor)


@given(tensors(st.text(max_size=20).map(str.encode)), st.booleans())
def test_json_round_trip_flat_and_nested(tensor: Tensor, is_nested: bool) -> None:  # noqa: FBT001
    data = to_json(tensor)
    if is_nested:
        objects = np.empty(len(data), object)
        objects[:] = data
        data = objects.reshape(tensor.shape).tolist()
    travelled = json.loads(json.dumps(data, allow_nan=False))
    read = from_json(travelled, tensor.shape, datatype_of(tensor), is_base64=False)
    assert read.dtype == tensor.dtype
    np.testing.assert_array_equal(read, tensor)


@given(tensors(st.binary(max_size=20)), st.integers(min_value=1, max_value=8))
def test_other_byte_counts_are_refused(tensor: Tensor, by: int) -> None:
    body = to_binary(tensor)
    for wrong in (body[:-by], body + bytes(by)):
        with pytest.raises(Malformed):
            from_binary(memoryview(wrong), tensor.shape, datatype_of(tensor))


@pytest.mark.parametrize("shape", [(2**31 - 1,) * 4, (10**9,)])
@pytest.mark.parametrize("datatype", DTYPES)
def test_a_shape_may_claim_anything_without_costing_memory(
    datatype: Datatype, shape: tuple[int, ...]
) -> None:
    with pytest.raises(Malformed):
        from_binary(memoryview(b"\0\0\0\0"), shape, datatype)
    with pytest.raises(Malformed):
        from_json(["0"], shape, datatype, is_base64=False)


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("UINT8", [256]),
        ("UINT8", [-1]),
        ("UINT8", [True]),
        ("UINT8", [1.0]),
        ("INT32", [2**31]),
        ("INT32", [10**400]),
        ("INT32", ["1"]),
        ("FP32", [1e39]),
        ("FP32", [math.inf]),
        ("FP32", [10**400]),
        ("FP32", [False]),
        ("FP32", [None]),
        ("FP32", [{}]),
        ("BYTES", [1]),
        ("BYTES", ["\ud800"]),
    ],
)
def test_values_of_another_kind_are_refused(datatype: Datatype, data: list[object]) -> None:
    with pytest.raises(Malformed):
        from_json(data, (1,), datatype, is_base64=False)


@pytest.mark.parametrize(
    "data", [[[1, 2], [3]], [[1, 2], 3], [1, [2, 3]], [[1, 2, 3, 4]], [1, 2, 3], [], [[]]]
)
def test_ragged_data_are_refused(data: list[object]) -> None:
    with pytest.raises(Malformed, match="do not fill"):
        from_json(data, (2, 2), "INT32", is_base64=False)


@pytest.mark.parametrize("text", ["é", "a", "YQ", "YQ==\n", "Y Q=="])
def test_base64_is_strict(text: str) -> None:
    with pytest.raises(Malformed, match="base64"):
        from_json([text], (1,), "BYTES", is_base64=True)
