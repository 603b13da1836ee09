"""Requests as the protocol has them: by the real client, and by hand for what that would never send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import tritonclient.http as triton

from app.bundle.sample import RawInputs
from tests.server import Server

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/tiny/infer"


def tensor(name: str, array: np.ndarray, datatype: str, *, binary: bool = True) -> triton.InferInput:
    value = triton.InferInput(name, list(array.shape), datatype)
    value.set_data_from_numpy(array, binary_data=binary)
    return value


def media(rows: Sequence[RawInputs]) -> list[triton.InferInput]:
    """BYTES [rows, 1] for every modality that any row has; absent ones are empty."""
    inputs = []
    for name in ("image", "text", "audio"):
        bodies = [getattr(row, name) or b"" for row in rows]
        if any(bodies):
            inputs.append(tensor(name, np.array(bodies, object)[:, None], "BYTES"))
    return inputs


def texts(*values: str, **more: Any) -> dict[str, Any]:
    """A JSON request of texts."""
    spec = {"name": "text", "shape": [len(values), 1], "datatype": "BYTES", "data": list(values)}
    return {"inputs": [spec], **more}


def post(server: Server, content: object, path: str = INFER, **headers: str) -> httpx.Response:
    """JSON, or bytes as they are."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.post(server.url + path, content=body, headers=headers, timeout=30)


def binary(header: object, *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    """A body of JSON and raw tensors, and the header that says where they part."""
    text = json.dumps(header).encode()
    return text + b"".join(tensors), {HEADER: str(len(text))}


def error(response: httpx.Response) -> str:
    """The message, if the answer has the protocol's form."""
    content = response.json()
    assert list(content) == ["error"], content
    assert isinstance(content["error"], str)
    return content["error"]
