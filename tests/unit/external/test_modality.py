"""What the content of a call to `/predict` is taken for, and what is refused."""

from __future__ import annotations

import base64
import io
import struct
import wave

import orjson
import pytest
from PIL import Image

from app.external.modality import read_by_content
from core.errors import BadRequest, InvalidInput, MalformedBody, TooLarge, UnsupportedMedia
from core.media.kinds import modality_of


def _picture(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, format)
    return buffer.getvalue()


def _recording() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\1\0" * 160)
    return buffer.getvalue()


def _form(*files: tuple[str, str, bytes]) -> tuple[bytes, bytes]:
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\nContent-Type: %s\r\n\r\n%s\r\n'
        % (name.encode(), kind.encode(), data)
        for name, kind, data in files
    ]
    return b"multipart/form-data; boundary=x", b"".join([*parts, b"--x--\r\n"])


JPEG, PNG, WAV = _picture("JPEG"), _picture("PNG"), _recording()
OPUS = b"OggS\0\2" + bytes(20) + b"\1\x13OpusHead" + bytes(20)
MP3 = b"\xff\xfb\x90\x64" + bytes(400)
JSON = b"application/json"


def _json(inputs: object) -> bytes:
    return orjson.dumps({"inputs": inputs})


def _in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("claimed", [b"", b"image/png", b"text/plain", b"audio/wav", JSON])
@pytest.mark.parametrize(
    ("body", "modality"),
    [(_picture(kind), "image") for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")]
    + [(WAV, "audio"), (b"fLaC\0\0\0\x22" + bytes(34), "audio"), (OPUS, "audio"), (MP3, "audio")],
)
def test_a_file_is_what_it_is_whatever_it_is_called(body: bytes, modality: str, claimed: bytes) -> None:
    found, call = read_by_content(claimed, body, max_items=4)
    assert found == modality
    assert call.files is not None
    assert [file.data for file in call.files] == [body]


@pytest.mark.parametrize(
    ("claimed", "body", "modality"),
    [
        (b"text/plain; charset=utf-8", "Grüße 🐈".encode(), "text"),
        (b"", b"a text without a name", "text"),
        (b"application/octet-stream", b"a text without a name", "text"),
        (b"text/plain", b"BMW and ID3 tags", "text"),
        (b"text/plain", b'{"inputs": [1, 2]}', "text"),
        (b"text/html", b"<html>hello</html>", "text"),
        (JSON, _json("a text"), "text"),
        (JSON, _json({"text": ["one", "two"]}), "text"),
        (JSON, _json(["one", "two"]), "text"),
        (JSON, _json([[1.0, 2.0]]), "tensor"),
        (JSON, _json({"x": [[1.0, 2.0]]}), "tensor"),
        (JSON, _json([{"name": "x", "shape": [1], "data": [1]}]), "tensor"),
        (JSON, _json({"image": [[0.5]]}), "tensor"),
        (b"", _json([[1.0, 2.0]]), "tensor"),
        (b"application/x-www-form-urlencoded", _json([[1.0]]), "tensor"),
        (JSON, _json({"image": _in_base64(JPEG)}), "image"),
        (JSON, _json({"file": [_in_base64(WAV)]}), "audio"),
        (JSON, _json(_in_base64(PNG)), "image"),
        (JSON, _json(["data:image/png;base64," + _in_base64(PNG)]), "image"),
        (*_form(("image", "image/jpeg", WAV)), "audio"),
        (*_form(("file", "", JPEG), ("image", "", PNG)), "image"),
        (*_form(("file", "text/plain", b"some words")), "text"),
    ],
)
def test_the_content_says_what_it_is(claimed: bytes, body: bytes, modality: str) -> None:
    assert read_by_content(claimed, body, max_items=4)[0] == modality


@pytest.mark.parametrize(
    ("claimed", "body", "error", "says"),
    [
        (b"", b"", BadRequest, "empty"),
        (b"image/tiff", b"II*\0" + bytes(40), UnsupportedMedia, "a TIFF image"),
        (b"", b"%PDF-1.7\n\xe2\xe3\xcf\xd3", UnsupportedMedia, "a PDF document"),
        (b"", b"PK\3\4" + bytes(40), UnsupportedMedia, "a zip archive"),
        (b"", bytes(range(256)), UnsupportedMedia, "data of an unknown kind"),
        (b"image/png", b"these are words", UnsupportedMedia, "text called 'image/png'"),
        (b"", b"<svg></svg>", UnsupportedMedia, "an SVG drawing"),
        (b"", b'{"input": 1}', UnsupportedMedia, "JSON text without `inputs`"),
        (b"", b"[1, 2]", UnsupportedMedia, "JSON text without `inputs`"),
        (b"application/x-www-form-urlencoded", b"text=hello", UnsupportedMedia, "text called"),
        (b"text/plain", b"\xff\xfea\0b\0", UnsupportedMedia, "text"),
        (JSON, b"{", MalformedBody, "not valid JSON"),
        (JSON, b"{}", BadRequest, "`inputs`"),
        (JSON, _json(None), InvalidInput, "null"),
        (JSON, _json(3), InvalidInput, "a number"),
        (JSON, _json([]), InvalidInput, "empty"),
        (JSON, _json({"image": _in_base64(b"%PDF-1.7\n")}), UnsupportedMedia, "a PDF document"),
        (JSON, _json({"image": "no base64!"}), InvalidInput, "base64"),
        (JSON, _json(["some words", _in_base64(JPEG)]), InvalidInput, "one kind"),
        (JSON, _json({"image": [_in_base64(JPEG)] * 5}), TooLarge, "4 files"),
        (*_form(("image", "", JPEG), ("audio", "", WAV)), InvalidInput, "audio and image"),
        (*_form(("file", "", b"%PDF-1.7\n")), UnsupportedMedia, "a PDF document"),
        (b"multipart/form-data; boundary=x", b"--x\r\n", MalformedBody, "multipart"),
    ],
)
def test_what_leaves_a_doubt_is_refused_with_what_was_seen(
    claimed: bytes, body: bytes, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        read_by_content(claimed, body, max_items=4)


def test_a_text_may_begin_like_a_file() -> None:
    for text in (b"BMW builds cars", b"ID3 tags name songs", b"OggS is a mark", b"GIF87a came first"):
        assert modality_of(text) == "text"


def test_a_wave_in_another_container_is_no_recording() -> None:
    assert modality_of(b"XXXX" + struct.pack("<I", 40) + b"WAVE" + bytes(40)) is None
