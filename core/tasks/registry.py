"""The tasks by name, imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from core.errors import Unprocessable
from core.tasks.base import Task

TASKS: Final[Mapping[str, str]] = {
    "tensor": "core.tasks.tensor:TensorTask",
    "image-classification": "core.tasks.image_classification:ImageClassification",
    "object-detection": "core.tasks.object_detection:ObjectDetection",
    "text-detection": "core.tasks.text_detection:TextDetection",
    "text-recognition": "core.tasks.text_recognition:TextRecognition",
    "text-embedding": "core.tasks.text_embedding:TextEmbedding",
    "text-classification": "core.tasks.text_classification:TextClassification",
    "token-classification": "core.tasks.token_classification:TokenClassification",
    "speech-recognition": "core.tasks.speech_recognition:SpeechRecognition",
    "image-embedding": "core.tasks.image_embedding:ImageEmbedding",
    "zero-shot-image-classification": "core.tasks.zero_shot_image_classification:ZeroShotImageClassification",
    "semantic-segmentation": "core.tasks.semantic_segmentation:SemanticSegmentation",
    "instance-segmentation": "core.tasks.instance_segmentation:InstanceSegmentation",
    "voice-activity": "core.tasks.voice_activity:VoiceActivity",
}


def task_names() -> list[str]:
    """Every task this release knows."""
    return list(TASKS)


def task_class(name: str) -> type[Task]:
    """The class behind `name`. Raises Unprocessable, naming those that exist."""
    try:
        module, _, attribute = TASKS[name].partition(":")
    except KeyError:
        known = ", ".join(TASKS)
        raise Unprocessable(f"There is no task {name!r}; the tasks are {known}.") from None
    loaded: type[Task] = getattr(import_module(module), attribute)
    return loaded
