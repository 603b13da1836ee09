"""An inference request: its JSON checked, its tensors read, its parameters given their meaning here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from app.api.errors import Refusal
from app.api.v2.bodies import load_json
from app.api.v2.schemas import InferRequest, InputTensor
from app.api.v2.tensors import InputDatatype, Malformed, Tensor, from_binary, from_json
from app.bundle.manifest import Inputs, Manifest
from app.serving.schedule import Priority

HEADER: Final = "Inference-Header-Content-Length"
LENGTH_INPUT: Final = "audio_length"
_OUTPUTS: Final = ("probabilities", "logits", "embedding", "modality_probabilities")
SET_OUTPUT: Final = "prediction_set"
_UNRANKED: Final = ("modality_probabilities", SET_OUTPUT)  # outputs whose best values nobody can name

_DATATYPES: Final[Mapping[str, tuple[InputDatatype, ...]]] = {
    "image": ("BYTES", "UINT8"),
    "text": ("BYTES", "INT32"),
    "audio": ("BYTES", "FP32"),
    LENGTH_INPUT: ("INT32",),
}
_MEDIA: Final = ("image", "audio")  # no text can be one of these, so in JSON they are base64


@dataclass(frozen=True, slots=True)
class WantedOutput:
    name: str
    is_binary: bool
    classes: int  # how many to name; 0 for the tensor itself


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for. All its inputs have `rows` rows."""

    id: str | None
    rows: int
    inputs: Mapping[str, Tensor]
    outputs: tuple[WantedOutput, ...]
    priority: Priority
    timeout_s: float | None


def output_names(manifest: Manifest) -> tuple[str, ...]:
    """What may be asked for, and is sent to those who ask for nothing by name."""
    return _OUTPUTS if manifest.calibration.conformal is None else (*_OUTPUTS, SET_OUTPUT)


def parse_request(body: bytes, header_length: str | None, manifest: Manifest, *, max_rows: int) -> Asked:
    """Raises Refusal: bad_request, or body_too_large for JSON that should have been binary."""
    end = _json_length(header_length, body)
    header = _checked(load_json(body[:end]))
    tensors = _read_tensors(header, memoryview(body)[end:], manifest.inputs)
    parameters = header.parameters
    return Asked(
        id=header.id,
        rows=_rows(tensors, max_rows=max_rows),
        inputs=tensors,
        outputs=_wanted(header, output_names(manifest)),
        priority=Priority.BATCH if parameters.priority > 1 else Priority.INTERACTIVE,
        timeout_s=parameters.timeout / 1e6 or None,
    )


def _json_length(header_length: str | None, body: bytes) -> int:
    if header_length is None:
        return len(body)
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 16):
        raise Refusal("bad_request", f"{HEADER} is not a number of bytes.")
    if int(header_length) > len(body):
        raise Refusal("bad_request", f"{HEADER} says more bytes than the body has.")
    if int(header_length) == 0:
        raise Refusal("bad_request", "A raw binary request is not read here. Describe the tensors in JSON.")
    return int(header_length)


def _checked(content: object) -> InferRequest:
    try:
        return InferRequest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the request"
        raise Refusal("bad_request", f"{where}: {first['msg']}.") from error


def _read_tensors(header: InferRequest, binary: memoryview, inputs: Inputs) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    start = 0
    for spec in header.inputs:
        _check_input(spec, tensors, inputs)
        size = spec.parameters.binary_data_size or 0
        if start + size > len(binary):
            raise Refusal("bad_request", f"Input '{spec.name}': its bytes run past the end of the body.")
        try:
            tensors[spec.name] = _read_tensor(spec, binary[start : start + size])
        except Malformed as error:
            raise Refusal("bad_request", f"Input '{spec.name}': {error}.") from error
        start += size
    if start != len(binary):
        raise Refusal("bad_request", "The body has more bytes than its inputs say.")
    return tensors


def _check_input(spec: InputTensor, known: Mapping[str, Tensor], inputs: Inputs) -> None:
    readable = [*inputs.names, *([LENGTH_INPUT] if inputs.audio else [])]
    if spec.name not in readable:
        raise Refusal("bad_request", f"An input has another name than {', '.join(readable)}.")
    if spec.name in known:
        raise Refusal("bad_request", f"Input '{spec.name}' is there twice.")
    if spec.datatype not in _DATATYPES[spec.name]:
        raise Refusal("bad_request", f"Input '{spec.name}' is {' or '.join(_DATATYPES[spec.name])}.")
    if not _has_rank(spec):
        raise Refusal("bad_request", f"Input '{spec.name}' of {spec.datatype} has another shape.")
    if spec.parameters.shared_memory_region is not None:
        raise Refusal("bad_request", "Shared memory is not supported. Send the tensors in the body.")


def _has_rank(spec: InputTensor) -> bool:
    """One value a row, also without an axis of its own; a prepared text or sound a row; an image a row."""
    if spec.datatype == "BYTES" or spec.name == LENGTH_INPUT:
        return spec.shape[1:] in ([], [1])
    return len(spec.shape) == (4 if spec.datatype == "UINT8" else 2)


def _read_tensor(spec: InputTensor, binary: memoryview) -> Tensor:
    if spec.parameters.binary_data_size is None:
        if spec.data is None:
            raise Malformed("it has neither data nor binary_data_size")
        return from_json(spec.data, spec.shape, spec.datatype, is_base64=spec.name in _MEDIA)
    if spec.data is not None:
        raise Malformed("it has both data and binary_data_size")
    return from_binary(binary, spec.shape, spec.datatype)


def _rows(tensors: Mapping[str, Tensor], *, max_rows: int) -> int:
    counts = {len(tensor) for tensor in tensors.values()}
    if len(counts) > 1:
        raise Refusal("bad_request", "The inputs differ in their number of rows.")
    [rows] = counts
    if rows > max_rows:
        raise Refusal("bad_request", f"One request holds at most {max_rows} rows. Send several.")
    return rows


def _wanted(header: InferRequest, known: tuple[str, ...]) -> tuple[WantedOutput, ...]:
    default = header.parameters.binary_data_output
    if not header.outputs:
        return tuple(WantedOutput(name, is_binary=default, classes=0) for name in known)
    names = [output.name for output in header.outputs]
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise Refusal("bad_request", f"Outputs are {', '.join(known)}, each at most once.")
    for output in header.outputs:
        if output.parameters.shared_memory_region is not None:
            raise Refusal("bad_request", "Shared memory is not supported. Read the outputs from the body.")
        if output.parameters.classification and output.name in _UNRANKED:
            raise Refusal("bad_request", f"{output.name} has no classification; take the tensor.")
    return tuple(
        WantedOutput(
            output.name,
            is_binary=default if output.parameters.binary_data is None else output.parameters.binary_data,
            classes=output.parameters.classification,
        )
        for output in header.outputs
    )
