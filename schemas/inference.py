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
    modality: str
    default: bool = Field(description="Whether `/predict` sends it what it gets of this modality.")
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
    cached: bool | None = Field(None, description="True where the answer was computed for an earlier request.")
    predictions: list[Prediction] | None = None
    detections: list[dict[str, Any]] | None = Field(None, description="Label, index, score and box, best first.")
    masks: list[dict[str, Any]] | None = Field(
        None, description="What was found, with its mask in the image's size."
    )
    map: str | None = Field(None, description="The class of each pixel, as a PNG in base64.")
    image: dict[str, int] | None = Field(None, description="Width and height of the image as it is looked at.")
    embedding: list[float] | None = None
    entities: list[dict[str, Any]] | None = Field(
        None, description="Label, score, start and end in characters of the text as sent, and what stands there."
    )
    tokens: int | None = Field(None, description="How many tokens of the text the model got.")
    truncated: bool | None = Field(None, description="Whether the text had more tokens than the model takes.")
    outputs: list[dict[str, Any]] | None = None
    results: list[dict[str, Any]] | None = Field(None, description="One answer a file, in order.")


class PredictAnswer(InferenceAnswer):
    """The answer of `/predict`: that of the model, with what was seen and how long it took."""

    modality: str
    latency_ms: float = Field(description="Milliseconds from the whole body to the answer, routing included.")


class JsonInference(Answer):
    """A JSON call: tensors for the task `tensor`, base64 media for others."""

    inputs: dict[str, Any] | list[Any] | str
    parameters: dict[str, Any] = Field(default_factory=dict)
