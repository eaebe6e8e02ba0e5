"""From the bytes of a native call to an InferenceRequest."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from app.external.multipart import Part, parse_multipart
from core.errors import BadRequest, InvalidInput, MalformedBody, TooLarge, UnsupportedMedia
from core.media.tensors import tensors_from_json
from core.serving.request import InferenceRequest
from core.serving.target import Target
from core.tasks.base import Payload

MEDIA_FIELDS = ("image", "audio", "file")


def read_call(target: Target, content_type: bytes, body: bytes, *, max_items: int) -> InferenceRequest:
    """Read a body by its media type: multipart files, JSON, or the raw bytes of one file.

    Raises BadRequest, MalformedBody, TooLarge, UnsupportedMedia or InvalidInput.
    """
    if content_type == b"application/json":
        return _from_json(target, body, max_items)
    kind = content_type.split(b";", 1)[0].strip().lower()
    if kind == b"multipart/form-data":
        return _from_multipart(target, parse_multipart(content_type, body, max_parts=max_items + 8), max_items)
    if kind == b"application/json":
        return _from_json(target, body, max_items)
    if not body:
        raise BadRequest("The body is empty; send a file or JSON.")
    if target.modality == "tensor":
        raise UnsupportedMedia(
            f"This model takes tensors: send JSON with `inputs`, not {kind.decode('latin-1')!r}."
        )
    return InferenceRequest(payloads=[Payload(body, kind.decode("latin-1"))])


def is_structured(content_type: bytes) -> bool:
    """Whether there is anything to parse: the bytes of one file are taken as they are."""
    return content_type.split(b";", 1)[0].strip().lower() in (b"application/json", b"multipart/form-data")


def _from_multipart(target: Target, parts: list[Part], max_items: int) -> InferenceRequest:
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
    if target.modality == "tensor":
        raise UnsupportedMedia("This model takes tensors: send JSON with `inputs` as application/json.")
    if len(files) > max_items:
        raise TooLarge(f"One request may hold {max_items} files.")
    payloads = [Payload(part.data, part.media_type, part.name) for part in files]
    return InferenceRequest(payloads=payloads, parameters=parameters)


def _from_json(target: Target, body: bytes, max_items: int) -> InferenceRequest:
    call = _json(body)
    if not isinstance(call, dict) or "inputs" not in call:
        raise BadRequest("The JSON body must be an object with `inputs`.")
    parameters: dict[str, Any] = {}
    if len(call) > 1:
        unknown = call.keys() - {"inputs", "parameters"}
        if unknown:
            raise BadRequest(f"The key {min(unknown)[:64]!r} is not known; a call has `inputs` and `parameters`.")
        parameters = _parameters(call["parameters"])
    if target.modality == "tensor":
        return InferenceRequest(inputs=tensors_from_json(call["inputs"], target.signature), parameters=parameters)
    return InferenceRequest(payloads=_media(call["inputs"], max_items), parameters=parameters)


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


def _media(inputs: Any, max_items: int) -> list[Payload]:
    """Base64 text, a list of it, or an object with one media field that holds either."""
    if isinstance(inputs, dict):
        if len(inputs) != 1 or next(iter(inputs)) not in MEDIA_FIELDS:
            raise BadRequest("`inputs` must hold the file in base64 as `image`, `audio` or `file`.")
        inputs = next(iter(inputs.values()))
    items = inputs if isinstance(inputs, list) else [inputs]
    if not items:
        raise BadRequest("`inputs` is empty.")
    if len(items) > max_items:
        raise TooLarge(f"One request may hold {max_items} files.")
    return [Payload(_from_base64(item)) for item in items]


def _from_base64(item: Any) -> bytes:
    if not isinstance(item, str):
        raise InvalidInput("Media in JSON must be text in base64.")
    text = item.split(",", 1)[1] if item.startswith("data:") and "," in item else item
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("The media in `inputs` is not valid base64.") from error
