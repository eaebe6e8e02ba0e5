"""CTranslate2's files: told by content, and read before the engine gets them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.errors import InvalidPackage, UnsupportedMedia
from core.store.formats import detect
from core.validation import ctranslate2_file


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variable(name: str, shape: tuple[int, ...], kind: int = 0, size: int | None = None) -> bytes:
    count = 1
    for axis in shape:
        count *= axis
    real = count * 4 if size is None else size
    return text(name) + struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, kind, real) + bytes(min(real, 4096))


def model(
    variables: Mapping[str, bytes] | None = None, kind: str = "WhisperSpec", aliases: tuple[str, ...] = ()
) -> bytes:
    variables = variables or {"w": variable("w", (2, 3))}
    head = struct.pack("<I", 6) + text(kind) + struct.pack("<II", 3, len(variables))
    tail = struct.pack("<I", len(aliases)) + b"".join(text("a") + text(to) for to in aliases)
    return head + b"".join(variables.values()) + tail


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(data)
    return path


def test_it_is_known_by_content(tmp_path: Path) -> None:
    assert detect(write(tmp_path, model())) == "ctranslate2"
    with pytest.raises(UnsupportedMedia, match=r"kind TransformerSpec; of those, Whisper alone"):
        detect(write(tmp_path, model(kind="TransformerSpec")))


def test_a_whole_one_is_read(tmp_path: Path) -> None:
    found = ctranslate2_file.parse(write(tmp_path, model(aliases=("w",))))
    assert found.shapes == {"w": (2, 3)}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (model()[:-1], "cut short"),
        (model()[:30], "cut short"),
        (model() + b"x", "follows the end"),
        (b"\x05" + model()[1:], "binary version 5"),
        (model({"w": variable("w", (2, 3), size=8)}), "does not have the size of its shape"),
        (model({"w": variable("w", (1 << 20, 1 << 9))}), "cut short|size of its shape"),
        (model({"w": variable("w", (2,), kind=9)}), "does not have the size of its shape"),
        (model({"w": text("w") + b"\xff" * 40}), "cut short"),
        (model(aliases=("v",))[:-1] + b"\0", "alias"),
        (struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 2**31), "cut short"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(InvalidPackage, match=says):
        ctranslate2_file.parse(write(tmp_path, data))


def test_its_companions_must_fit(tmp_path: Path) -> None:
    found = ctranslate2_file.Variables({"decoder/embeddings/weight": (3, 4)})

    def refused(says: str) -> None:
        with pytest.raises(InvalidPackage, match=says):
            ctranslate2_file.check_companions(found, tmp_path)

    refused(r"lacks config\.json")
    (tmp_path / "config.json").write_text("[]")
    refused("must hold fields by name")
    (tmp_path / "config.json").write_text("{")
    refused("no JSON")
    (tmp_path / "config.json").write_text("{}")
    refused(r"lacks vocabulary\.txt")
    (tmp_path / "vocabulary.txt").write_text("a\nb\n")
    refused("has 2 tokens, but the model 3: they are of different models")
    (tmp_path / "vocabulary.txt").write_text("a\n\nc\n")  # as in multilingual ones, one is empty
    assert ctranslate2_file.check_companions(found, tmp_path) == 3
