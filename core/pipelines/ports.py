"""What goes into a model's node and what comes out of it, by the model's task.

A port of the output is a key of the task's answer (docs/tasks/); every model also has `answer`, all of it as json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from core.pipelines.types import (
    AUDIO,
    DETECTIONS,
    EMBEDDING,
    IMAGE,
    JSON,
    LABELS,
    NUMBER,
    POLYGON,
    TEXT,
    Type,
    list_of,
    record,
)
from core.signature import Signature

ANSWER: Final = "answer"
_BY_MODALITY: Final[Mapping[str, Type]] = {"image": IMAGE, "text": TEXT, "audio": AUDIO}
REGION: Final = record({"polygon": POLYGON, "score": NUMBER}, "region")
# Keys of a task's answer that have a type of their own; those not listed here are within `answer`.
_ANSWERS: Final[Mapping[str, Mapping[str, Type]]] = {
    "image-classification": {"predictions": LABELS},
    "zero-shot-image-classification": {"predictions": LABELS},
    "text-classification": {"predictions": LABELS},
    "object-detection": {"detections": DETECTIONS},
    "instance-segmentation": {"masks": DETECTIONS},
    "semantic-segmentation": {"masks": JSON},
    "token-classification": {"entities": JSON},
    "image-embedding": {"embedding": EMBEDDING},
    "text-embedding": {"embedding": EMBEDDING},
    "speech-recognition": {"text": TEXT, "segments": JSON, "language": TEXT},
    "voice-activity": {"speech": JSON},
    "text-detection": {"regions": list_of(REGION)},
    "text-recognition": {"text": TEXT, "score": NUMBER},
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model's version without loading it."""

    task: str
    modality: str
    signature: Signature


def model_inputs(facts: ModelFacts) -> dict[str, Type]:
    """The input ports of a model: its medium, or its tensors by name."""
    if facts.modality in _BY_MODALITY:
        return {facts.modality: _BY_MODALITY[facts.modality]}
    return {spec.name: Type("tensor", dtype=spec.dtype, shape=spec.shape) for spec in facts.signature.inputs}


def model_outputs(facts: ModelFacts) -> dict[str, Type]:
    """The output ports of a model: the keys of its answer, or its tensors by name."""
    if facts.modality in _BY_MODALITY:
        return {**_ANSWERS.get(facts.task, {}), ANSWER: JSON}
    return {spec.name: Type("tensor", dtype=spec.dtype, shape=spec.shape) for spec in facts.signature.outputs}
