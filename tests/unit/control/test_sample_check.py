from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest

from core.control.sample_check import media_type_of
from core.control.sample_labels import read_labels
from core.errors import PlatformError, TooLarge, Unprocessable, UnsupportedMedia
from core.validation.samples import make_picture


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return file.getvalue()


def kind(data: bytes, modality: str, *, max_bytes: int = 1 << 20) -> str:
    return media_type_of(data, modality, "cat", max_pixels=10_000, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("data", "modality", "media_type"),
    [
        (make_picture(), "image", "image/png"),
        (npy(np.ones(3)), "tensor", "application/x-npy"),
        (zipped(x_npy=npy(np.ones(3))), "tensor", "application/x-npz"),
        (b'{"inputs": [1, 2]}', "tensor", "application/json"),
        ("Grüße".encode(), "text", "text/plain"),
    ],
)
def test_what_a_sample_is(data: bytes, modality: str, media_type: str) -> None:
    assert kind(data, modality) == media_type


HOSTILE: dict[str, tuple[bytes, str, type[PlatformError], str]] = {
    "nothing": (b"", "image", UnsupportedMedia, "empty"),
    "a text for a picture": (b"a text", "image", UnsupportedMedia, "cat"),
    "a picture for arrays": (make_picture(), "tensor", UnsupportedMedia, "PNG"),
    "a pickle": (pickle.dumps([1]), "tensor", UnsupportedMedia, "tensors"),
    "an array of objects": (npy(np.array([{}]), allow_pickle=True), "tensor", UnsupportedMedia, "pickle"),
    "an array cut short": (npy(np.ones(300))[:200], "tensor", UnsupportedMedia, "cut short"),
    "a damaged array": (b"\x93NUMPY\x01\x00\x08\x00garbage!", "tensor", UnsupportedMedia, "damaged"),
    "a zip of texts": (zipped(a_txt=b"a"), "tensor", UnsupportedMedia, "npz"),
    "a damaged zip": (zipped(x_npy=npy(np.ones(3)))[:60], "tensor", UnsupportedMedia, "damaged"),
    "an npz that is a bomb": (zipped(x_npy=npy(np.zeros(1 << 20))), "tensor", TooLarge, "unpacks"),
    "too many bytes": (b"x" * (2 << 20), "text", TooLarge, "samples.max_sample_bytes"),
    "no text": (b"\xff\xfe\x00", "text", UnsupportedMedia, "UTF-8"),
    "a kind for which there is no task": (b"RIFF", "audio", UnsupportedMedia, "audio"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_sample_is(name: str) -> None:
    data, modality, error, says = HOSTILE[name]
    with pytest.raises(error, match=says):
        kind(data, modality)


def test_a_picture_of_too_many_pixels() -> None:
    with pytest.raises(TooLarge, match="pixels"):
        media_type_of(make_picture(), "image", "cat", max_pixels=96 * 64 - 1, max_bytes=1 << 20)


@pytest.mark.parametrize(
    "text",
    [
        "a.png,cat\nb.png,dog\n",
        "file,label\na.png,cat\n\nb.png, dog",
        '{"file": "a.png", "label": "cat"}\n{"file": "b.png", "label": "dog"}',
    ],
)
def test_labels_are_read(text: str) -> None:
    assert read_labels(text) == {"a.png": "cat", "b.png": "dog"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.png\n", "Line 1 .* 1 columns"),
        ("a.png,\n", "Line 1"),
        ("a.png,cat\na.png,dog\n", "twice"),
        ('{"file": "a.png"}', "Line 1"),
        ('{"file": 1\n', "Line 1"),
    ],
)
def test_labels_that_are_none(text: str, says: str) -> None:
    with pytest.raises(Unprocessable, match=says):
        read_labels(text)
