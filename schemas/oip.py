"""The Open Inference Protocol v2 over REST: its answers. The hot path (`infer`) does not go through these."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from schemas.base import Answer


class OipAnswer(Answer):
    """An answer of the protocol; some of its field names begin with `model_`."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())


class OipError(OipAnswer):
    """The body of every error under `/v2`."""

    error: str = Field(examples=["Input 'x' is FP32, but came as INT64."])


class ServerLive(OipAnswer):
    """The process runs."""

    live: bool


class ServerReady(OipAnswer):
    """Everything that should serve does."""

    ready: bool


class ServerMetadata(OipAnswer):
    """Who answers, and which extensions of the protocol it knows."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(OipAnswer):
    """One input or output; -1 is a dynamic dimension."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(OipAnswer):
    """A model, its live versions, and the tensors of the newest or of the version asked for."""

    name: str
    versions: list[str]
    platform: str = Field(examples=["onnxruntime_onnx"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(OipAnswer):
    """The model, or the version asked for, answers."""

    name: str
    ready: bool


class ModelStatistics(OipAnswer):
    """One entry for each live version, counted since it was loaded; durations are `{count, ns}`."""

    model_stats: list[dict[str, Any]]


class IndexEntry(OipAnswer):
    """A model that serves, or that should."""

    name: str
    version: str | None = None
    state: str = Field(examples=["READY"], description="READY, LOADING or UNAVAILABLE.")
    reason: str = ""


class IndexRequest(OipAnswer):
    """With `ready`, only what serves."""

    ready: bool = False


class InferTensor(OipAnswer):
    """A tensor: either `data`, or the parameter `binary_data_size` and bytes after the JSON."""

    name: str
    shape: list[int]
    datatype: str = Field(examples=["FP32"])
    parameters: dict[str, Any] | None = Field(None, examples=[{"binary_data_size": 16}])
    data: list[Any] | None = Field(None, description="Flat or nested, in row-major order.")


class InferOutput(OipAnswer):
    """An output asked for."""

    name: str
    parameters: dict[str, Any] | None = Field(None, examples=[{"binary_data": True}])


class InferRequest(OipAnswer):
    """The JSON of a call. `parameters`: `priority`, `timeout` in microseconds, `binary_data_output`."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[InferTensor]
    outputs: list[InferOutput] | None = None


class InferAnswer(OipAnswer):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferTensor]
