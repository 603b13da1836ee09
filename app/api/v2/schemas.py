"""What travels on the wire, as the protocol names it. The tensors beside the JSON are in tensors.py."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.v2.tensors import InputDatatype, OutputDatatype

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Dimension = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Asked(BaseModel):
    """Unknown members and parameters are ignored, as the protocol demands; known ones are strict."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class InputParameters(_Asked):
    binary_data_size: Count | None = Field(None, description="Bytes of this tensor after the JSON.")
    shared_memory_region: object = Field(None, description="Not supported.")


class InputTensor(_Asked):
    name: str
    shape: Annotated[list[Dimension], Field(min_length=1, max_length=4)]
    datatype: InputDatatype
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(None, description="Flat in row-major order, or nested.")


class OutputParameters(_Asked):
    binary_data: bool | None = Field(None, description="Send it after the JSON.")
    classification: Count = Field(0, description="Send the best so many as `value:index:label`.")
    shared_memory_region: object = Field(None, description="Not supported.")


class OutputRequest(_Asked):
    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Asked):
    binary_data_output: bool = Field(default=False, description="Send every output after the JSON.")
    priority: Count = Field(0, description="0 and 1: interactive. 2 and more: batch.")
    timeout: Count = Field(
        0, description="Microseconds until the answer is useless; 0: the server's default."
    )


class InferRequest(_Asked):
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[OutputRequest], Field(max_length=8)] = []
    parameters: RequestParameters = RequestParameters()
    id: Annotated[str, Field(max_length=256)] | None = None


class Error(BaseModel):
    error: str


class OutputTensor(BaseModel):
    name: str
    datatype: OutputDatatype
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = Field(None, description="Flat, in row-major order.")


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]
