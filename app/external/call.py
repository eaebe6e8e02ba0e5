"""From the bytes of a native call to an InferenceRequest."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.external.multipart import Part, parse_multipart
from core.errors import BadRequest, InvalidInput, MalformedBody, TooLarge, UnsupportedMedia
from core.media.tensors import tensors_from_json
from core.serving.request import InferenceRequest
from core.serving.target import Target
from core.tasks.base import Payload

MEDIA_FIELDS = ("image", "audio", "file")
JSON_KIND = b"application/json"
FORM_KIND = b"multipart/form-data"


@dataclass(slots=True)
class Call:
    """A body taken apart, before it is said which model it is for: files, or what JSON holds as `inputs`."""

    files: list[Payload] | None = None
    inputs: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)
    form: bool = False
    """Whether the files came in a form."""


def read_call(target: Target, content_type: bytes, body: bytes, *, max_items: int) -> InferenceRequest:
    """Read a body by its media type: multipart files, JSON, or the raw bytes of one file.

    Raises BadRequest, MalformedBody, TooLarge, UnsupportedMedia or InvalidInput.
    """
    return bind_call(target, take_apart(content_type, body, max_items=max_items), max_items=max_items)


def take_apart(content_type: bytes, body: bytes, *, max_items: int) -> Call:
    """Read a body by its media type alone. Raises BadRequest, MalformedBody or TooLarge."""
    if content_type == JSON_KIND:
        return read_json(body)
    kind = media_kind(content_type)
    if kind == FORM_KIND:
        return _read_form(parse_multipart(content_type, body, max_parts=max_items + 8), max_items)
    if kind == JSON_KIND:
        return read_json(body)
    if not body:
        raise BadRequest("The body is empty; send a file or JSON.")
    return Call([Payload(body, kind.decode("latin-1"))])


def bind_call(target: Target, call: Call, *, max_items: int) -> InferenceRequest:
    """Read a call as the target takes it. Raises BadRequest, TooLarge, UnsupportedMedia or InvalidInput."""
    if call.files is None:
        if target.modality == "tensor":
            inputs = tensors_from_json(call.inputs, target.signature)
            return InferenceRequest(inputs=inputs, parameters=call.parameters)
        read = text_payloads if target.modality == "text" else media_payloads
        return InferenceRequest(payloads=read(call.inputs, max_items), parameters=call.parameters)
    if target.modality == "tensor":
        if call.form:
            raise UnsupportedMedia("This model takes tensors: send JSON with `inputs` as application/json.")
        kind = call.files[0].media_type
        raise UnsupportedMedia(f"This model takes tensors: send JSON with `inputs`, not {kind!r}.")
    return InferenceRequest(payloads=call.files, parameters=call.parameters)


def media_kind(content_type: bytes) -> bytes:
    """A media type without its parameters, in small letters."""
    return content_type.split(b";", 1)[0].strip().lower()


def is_structured(content_type: bytes) -> bool:
    """Whether there is anything to parse: the bytes of one file are taken as they are."""
    return media_kind(content_type) in (JSON_KIND, FORM_KIND)


def read_json(body: bytes) -> Call:
    """A call in JSON. Raises MalformedBody or BadRequest."""
    call = _json(body)
    if not isinstance(call, dict) or "inputs" not in call:
        raise BadRequest("The JSON body must be an object with `inputs`.")
    if len(call) == 1:
        return Call(inputs=call["inputs"])
    unknown = call.keys() - {"inputs", "parameters"}
    if unknown:
        raise BadRequest(f"The key {min(unknown)[:64]!r} is not known; a call has `inputs` and `parameters`.")
    return Call(inputs=call["inputs"], parameters=_parameters(call["parameters"]))


def media_payloads(inputs: Any, max_items: int) -> list[Payload]:
    """Base64 text, a list of it, or an object with one media field that holds either.

    Raises BadRequest, TooLarge or InvalidInput.
    """
    if isinstance(inputs, dict):
        if len(inputs) != 1 or next(iter(inputs)) not in MEDIA_FIELDS:
            raise BadRequest("`inputs` must hold the file in base64 as `image`, `audio` or `file`.")
        inputs = next(iter(inputs.values()))
    items = inputs if isinstance(inputs, list) else [inputs]
    if not items:
        raise BadRequest("`inputs` is empty.")
    if len(items) > max_items:
        raise TooLarge(f"One request may hold {max_items} files.")
    return [Payload(from_base64(item)) for item in items]


def text_payloads(inputs: Any, max_items: int) -> list[Payload]:
    """A text, a list of texts, or an object whose only key `text` holds either; as UTF-8.

    Raises BadRequest, TooLarge or InvalidInput.
    """
    if isinstance(inputs, dict):
        if list(inputs) != ["text"]:
            raise BadRequest("`inputs` must be a text, a list of texts, or hold either as `text`.")
        inputs = inputs["text"]
    items = inputs if isinstance(inputs, list) else [inputs]
    if not items:
        raise BadRequest("`inputs` is empty.")
    if len(items) > max_items:
        raise TooLarge(f"One request may hold {max_items} texts.")
    if not all(isinstance(item, str) for item in items):
        raise InvalidInput("`inputs` must be a text or a list of texts.")
    return [Payload(item.encode(), "text/plain; charset=utf-8", "text") for item in items]


def from_base64(item: Any) -> bytes:
    """The bytes of base64 text or of a `data:` URL. Raises InvalidInput."""
    if not isinstance(item, str):
        raise InvalidInput("Media in JSON must be text in base64.")
    text = item.split(",", 1)[1] if item.startswith("data:") and "," in item else item
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("The media in `inputs` is not valid base64.") from error


def _read_form(parts: list[Part], max_items: int) -> Call:
    files = [part for part in parts if part.name in MEDIA_FIELDS]
    parameters: dict[str, Any] = {}
    for part in parts:
        if part.name == "parameters":
            parameters = _parameters(_json(part.data))
        elif part.name not in MEDIA_FIELDS:
            raise BadRequest(
                f"The field {part.name[:64]!r} is not known; send the file as `image`, `audio` or `file`."
            )
    if not files:
        raise BadRequest("The multipart body holds no file; send it as `image`, `audio` or `file`.")
    if len(files) > max_items:
        raise TooLarge(f"One request may hold {max_items} files.")
    return Call([Payload(part.data, part.media_type, part.name) for part in files], None, parameters, form=True)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The body is not valid JSON (line {error.lineno}, column {error.colno}).") from error


def _parameters(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("`parameters` must be an object.")
    return value
