"""What can be tried: models and pipelines in service, and what a form for one of them asks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.external.call import Call, read_json
from app.state import Platform
from core.errors import BadRequest, MalformedBody
from core.serving.target import Target
from core.signature import TensorSpec
from core.tasks.base import Payload

NOUNS: Final = {"image": "Images", "text": "Texts", "audio": "Recordings", "tensor": "Tensors"}
_ACCEPTED: Final = {
    "image": "image/jpeg,image/png,image/webp,image/gif,image/bmp",
    "audio": "audio/*",
    "tensor": "application/json,.json",
}
_ASKED: Final[Mapping[str, Mapping[str, Any]]] = {
    "image-classification": {"top_k": 5},
    "text-classification": {"top_k": 5},
    "zero-shot-image-classification": {"labels": ["a cat", "a dog"]},
    "object-detection": {"score_threshold": 0.3},
    "instance-segmentation": {"score_threshold": 0.3},
    "text-detection": {"score_threshold": 0.3},
}
_MOST_PREFILLED: Final = 1024


@dataclass(frozen=True, slots=True)
class Choice:
    """A target that can be called."""

    name: str
    task: str
    modality: str
    state: str
    versions: tuple[int, ...]
    inputs: tuple[TensorSpec, ...]
    example_parameters: str
    is_pipeline: bool

    @property
    def accepts(self) -> str:
        """What a file input offers."""
        return _ACCEPTED.get(self.modality, "")

    @property
    def example_inputs(self) -> str:
        """JSON that the signature takes; empty where that would be long."""
        if self.modality != "tensor" or sum(_size(spec) for spec in self.inputs) > _MOST_PREFILLED:
            return ""
        return json.dumps({spec.name: _zeros(spec, _filled(spec)) for spec in self.inputs})


def choices(platform: Platform) -> list[Choice]:
    """Everything that can be called now, in the order of names."""
    targets = {**platform.catalogue.idle(), **platform.catalogue.targets()}
    found = [(name, list(versions)) for name, versions in targets.items()]
    idle = platform.catalogue.idle()
    return [_choice(platform, name, versions, name in idle) for name, versions in sorted(found) if versions]


def _choice(platform: Platform, name: str, targets: list[Target], idle: bool) -> Choice:
    first = targets[0]
    is_pipeline = platform.pipelines.has(name)
    state = platform.pipelines.state(name)[0] if is_pipeline else "idle" if idle else "serving"
    return Choice(
        name=name,
        task=first.task,
        modality=first.modality,
        state=state,
        versions=tuple(sorted({target.version for target in targets}, reverse=True)),
        inputs=tuple(first.signature.inputs),
        example_parameters=json.dumps(_ASKED[first.task]) if first.task in _ASKED else "",
        is_pipeline=is_pipeline,
    )


def read_form(choice: Choice, file: Payload | None, texts: Mapping[str, str]) -> Call:
    """The call that a form means. Raises BadRequest or MalformedBody."""
    parameters = _parameters(texts.get("parameters", ""))
    if choice.modality == "text":
        text = texts.get("text", "")
        if file is not None:
            return Call([file], parameters=parameters)
        if not text.strip():
            raise BadRequest("Type a text first.")
        return Call(inputs=text, parameters=parameters)
    if choice.modality == "tensor":
        return _tensors(file.data if file is not None else texts.get("inputs", "").encode(), parameters)
    if file is None:
        raise BadRequest("Choose a photo first." if choice.modality == "image" else "Choose a recording first.")
    return Call([file], parameters=parameters)


def _tensors(data: bytes, parameters: dict[str, Any]) -> Call:
    if not data.strip():
        raise BadRequest("Type the inputs as JSON, or choose a file.")
    value = _json(data, "inputs")
    if isinstance(value, dict) and "inputs" in value:
        call = read_json(data)
        return Call(inputs=call.inputs, parameters={**call.parameters, **parameters})
    return Call(inputs=value, parameters=parameters)


def _parameters(text: str) -> dict[str, Any]:
    value = _json(text.encode(), "parameters") if text.strip() else {}
    if not isinstance(value, dict):
        raise BadRequest('The parameters must be an object, as {"top_k": 3}.')
    return value


def _json(data: bytes, what: str) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(
            f"The {what} are not valid JSON (line {error.lineno}, column {error.colno})."
        ) from error


def _filled(spec: TensorSpec) -> list[int]:
    return [max(1, axis) for axis in spec.shape]


def _size(spec: TensorSpec) -> int:
    return math.prod(_filled(spec))


def _zeros(spec: TensorSpec, shape: list[int]) -> Any:
    if shape:
        return [_zeros(spec, shape[1:]) for _ in range(shape[0])]
    return {"BYTES": "", "BOOL": False}.get(spec.dtype, 0 if "INT" in spec.dtype else 0.0)
