"""The native inference API, for its OpenAPI document; the hot path does not go through these."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.base import Answer
from schemas.models import TensorAnswer


class ServedModel(Answer):
    """A model that this token may call."""

    name: str
    task: str
    version: int
    state: str
    inputs: list[TensorAnswer]
    outputs: list[TensorAnswer]


class ServedModels(Answer):
    """All of them."""

    models: list[ServedModel]


class TimingAnswer(Answer):
    """Milliseconds."""

    queue: float
    preprocess: float
    infer: float
    postprocess: float
    total: float


class Prediction(Answer):
    """One class."""

    label: str
    index: int
    score: float


class InferenceAnswer(Answer):
    """The answer; the task decides which of the last fields is there. Several files answer with `results`."""

    request_id: str
    model: str
    version: int
    task: str
    timing_ms: TimingAnswer
    predictions: list[Prediction] | None = None
    outputs: list[dict[str, Any]] | None = None
    results: list[dict[str, Any]] | None = Field(None, description="One answer a file, in order.")


class JsonInference(Answer):
    """A JSON call: tensors for the task `tensor`, base64 media for others."""

    inputs: dict[str, Any] | list[Any]
    parameters: dict[str, Any] = Field(default_factory=dict)
