"""Reading a CTranslate2 model without running it: names, shapes and sizes of its variables, and its vocabulary.

Source of the layout: CTranslate2's `specs/model_spec.py`, binary version 6.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from core.engines.ctranslate2 import read_vocabulary
from core.errors import InvalidPackage, LoadFailed
from core.store.paths import shown

_VERSION: Final = 6
_MAX_VARIABLES: Final = 100_000
_MAX_RANK: Final = 8
_MAX_TEXT_BYTES: Final = 64 << 20
# Bytes of an element by the file's number for its type: float32, int8, int16, int32, float16, bfloat16.
_SIZES: Final = {0: 4, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2}
_EMBEDDING: Final = "decoder/embeddings/weight"
_CUT: Final = "The file is no whole CTranslate2 model: it is cut short or damaged; convert or copy it again."


@dataclass(frozen=True, slots=True)
class Variables:
    """Shapes of a model's variables by their names."""

    shapes: dict[str, tuple[int, ...]]


def parse(path: Path) -> Variables:
    """Walk over the whole file, weights aside. Raises InvalidPackage."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        (version,) = _unpack(file, "<I")
        if version != _VERSION:
            raise InvalidPackage(f"The model is of CTranslate2's binary version {version}, not {_VERSION}.")
        _name(file)
        _, count = _unpack(file, "<II")
        if count > _MAX_VARIABLES:
            raise InvalidPackage(_CUT)
        shapes = dict(_variable(file, size_bytes) for _ in range(count))
        (aliases,) = _unpack(file, "<I")
        if aliases > _MAX_VARIABLES:
            raise InvalidPackage(_CUT)
        for _ in range(aliases):
            _name(file)
            if _name(file) not in shapes:
                raise InvalidPackage("The model has an alias of a variable that it does not have.")
        if file.read(1):
            raise InvalidPackage("Something follows the end of the CTranslate2 model.")
    return Variables(shapes)


def check_companions(variables: Variables, folder: Path) -> int:
    """Check `config.json` and the vocabulary beside the model; the number of tokens. Raises InvalidPackage."""
    for name in ("config.json", "vocabulary.txt", "vocabulary.json"):
        path = folder / name
        if path.is_file() and path.stat().st_size > _MAX_TEXT_BYTES:
            raise InvalidPackage(f"The package's {name} is larger than {_MAX_TEXT_BYTES >> 20} MiB.")
    _config(folder / "config.json")
    try:
        tokens = read_vocabulary(folder)
    except LoadFailed as error:
        raise InvalidPackage(error.message) from error
    expected = variables.shapes.get(_EMBEDDING, (len(tokens),))[0]
    if len(tokens) != expected:
        raise InvalidPackage(
            f"The vocabulary has {len(tokens)} tokens, but the model {expected}: they are of different models."
        )
    return len(tokens)


def _config(path: Path) -> None:
    if not path.is_file():
        raise InvalidPackage(
            "The package lacks config.json, which CTranslate2's converter writes beside model.bin."
        )
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidPackage("The package's config.json is no JSON.") from error
    if not isinstance(value, dict):
        raise InvalidPackage("The package's config.json must hold fields by name.")


def _variable(file: IO[bytes], size_bytes: int) -> tuple[str, tuple[int, ...]]:
    name = _name(file)
    (rank,) = _unpack(file, "<B")
    if rank > _MAX_RANK:
        raise InvalidPackage(_CUT)
    shape = _unpack(file, f"<{rank}I")
    kind, data_bytes = _unpack(file, "<BI")
    if kind not in _SIZES or math.prod(shape) * _SIZES[kind] != data_bytes:
        raise InvalidPackage(f"The model's variable {shown(name)} does not have the size of its shape.")
    if file.tell() + data_bytes > size_bytes:
        raise InvalidPackage(_CUT)
    file.seek(data_bytes, 1)
    return name, shape


def _name(file: IO[bytes]) -> str:
    (length,) = _unpack(file, "<H")
    name = file.read(length)
    if len(name) != length or not name.endswith(b"\0"):
        raise InvalidPackage(_CUT)
    return name[:-1].decode("utf-8", errors="replace")


def _unpack(file: IO[bytes], format: str) -> tuple[int, ...]:
    data = file.read(struct.calcsize(format))
    try:
        return struct.unpack(format, data)
    except struct.error as error:
        raise InvalidPackage(_CUT) from error
