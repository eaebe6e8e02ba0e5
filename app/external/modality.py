"""From the bytes of a call to `/predict` to the modality that its content shows.

The content decides: a picture is a picture whatever the header calls it. The header counts only where the content
leaves two readings, JSON or text; what is left open after that is refused, with what was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from app.external.call import (
    FORM_KIND,
    JSON_KIND,
    MEDIA_FIELDS,
    Call,
    from_base64,
    media_kind,
    media_payloads,
    read_json,
    take_apart,
)
from core.errors import BadRequest, InvalidInput, UnsupportedMedia
from core.media.headers import describe
from core.media.kinds import is_text, modality_of
from core.tasks.base import Payload

WHAT_IS_TAKEN: Final = (
    "send an image (JPEG, PNG, WebP, GIF, BMP), a recording (WAV, FLAC, Ogg, MP3), text, or tensors as JSON"
)
_UNLABELLED: Final = (b"", b"application/octet-stream")


def read_by_content(content_type: bytes, body: bytes, *, max_items: int) -> tuple[str, Call]:
    """The modality of a body (image, audio, text or tensor), and the body taken apart.

    Raises UnsupportedMedia for what is of none, InvalidInput for what is of several; and as `take_apart`.
    """
    kind = media_kind(content_type)
    if not body:
        raise BadRequest("The body is empty; send a file or JSON.")
    found = modality_of(body)
    if found in ("image", "audio"):
        return found, Call([Payload(body, kind.decode("latin-1"))])
    if kind == FORM_KIND:
        call = take_apart(content_type, body, max_items=max_items)
        return _of_files(call.files or ()), call
    if kind == JSON_KIND:
        return _of_json(read_json(body), max_items)
    if kind.startswith(b"text/") and is_text(body):
        return "text", Call([Payload(body, kind.decode("latin-1"))])
    if found is None:
        raise UnsupportedMedia(f"This is {describe(body)}: {WHAT_IS_TAKEN}.")
    return _of_unlabelled(kind, body, max_items)


def _of_unlabelled(kind: bytes, body: bytes, max_items: int) -> tuple[str, Call]:
    """Text whose header does not say so: JSON where it can be nothing else, and text where it looks like it."""
    seen = describe(body)
    if seen == "JSON text":
        if _is_call(body):
            return _of_json(read_json(body), max_items)
        raise UnsupportedMedia(
            "This is JSON text without `inputs`: send it as text/plain, or an object with `inputs`."
        )
    if seen != "text" or kind not in _UNLABELLED:
        claimed = f" called {kind.decode('latin-1')[:64]!r}" if kind not in _UNLABELLED else ""
        raise UnsupportedMedia(f"This is {seen}{claimed}: send it as text/plain where it is meant as text.")
    return "text", Call([Payload(body, "text/plain")])


def _is_call(body: bytes) -> bool:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(said, dict) and "inputs" in said


def _of_json(call: Call, max_items: int) -> tuple[str, Call]:
    inputs = call.inputs
    if isinstance(inputs, dict) and len(inputs) == 1:
        name, value = next(iter(inputs.items()))
        if name in MEDIA_FIELDS and _is_words(value):
            files = media_payloads(inputs, max_items)
            return _of_files(files), Call(files, None, call.parameters)
        if name == "text" and _is_words(value):
            return "text", call
    if _is_words(inputs):
        return _of_words(call, [inputs] if isinstance(inputs, str) else inputs, max_items)
    if isinstance(inputs, dict | list) and inputs:
        return "tensor", call
    raise InvalidInput(f"`inputs` is {_named(inputs)}: {WHAT_IS_TAKEN}.")


def _of_words(call: Call, words: Sequence[str], max_items: int) -> tuple[str, Call]:
    """Texts, or files in base64: nobody writes a text that is also a picture in base64."""
    in_base64 = [_is_media(word) for word in words]
    if all(in_base64):
        files = media_payloads(call.inputs, max_items)
        return _of_files(files), Call(files, None, call.parameters)
    if any(in_base64):
        raise InvalidInput("`inputs` holds texts and files in base64: one request takes one kind of input.")
    return "text", call


def _is_media(word: str) -> bool:
    if word.startswith("data:"):
        return True
    head = word[:96]
    try:
        data = from_base64(head[: len(head) // 4 * 4])
    except InvalidInput:
        return False
    return modality_of(data) in ("image", "audio")


def _of_files(files: Sequence[Payload]) -> str:
    found = [_of_file(file) for file in files]
    if len(set(found)) > 1:
        kinds = " and ".join(sorted(set(found)))
        raise InvalidInput(f"The files are of several kinds ({kinds}): one request takes one kind of input.")
    return found[0]


def _of_file(file: Payload) -> str:
    found = modality_of(file.data)
    if found is None or (found == "text" and describe(file.data) != "text" and not _called_text(file)):
        raise UnsupportedMedia(f"This is {describe(file.data)}: {WHAT_IS_TAKEN}.")
    return found


def _called_text(file: Payload) -> bool:
    return media_kind(file.media_type.encode("latin-1", "replace")).startswith(b"text/")


def _is_words(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _named(value: Any) -> str:
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "empty")
