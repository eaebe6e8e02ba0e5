"""Enough of protobuf's wire format to know an ONNX model when one lies there, without the onnx library.

Sources: protobuf.dev "Encoding"; onnx.proto3, message ModelProto.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

Verdict = Literal["onnx", "cut_short", "other"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_IR_VERSION, _GRAPH = 1, 7
# Of the fields that ModelProto has had so far; unknown ones may be of any type.
_WIRE_TYPES: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_MAX_FIELD: Final = 1000
_MAX_FIELDS: Final = 100_000
_MAX_IR_VERSION: Final = 1000


class _CutShort(Exception):
    pass


class _Reader:
    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.size_bytes = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()

    def at_end(self) -> bool:
        return self._file.tell() >= self.size_bytes

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte:
                raise _CutShort
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise ValueError("a varint of more than ten bytes")

    def skip(self, size_bytes: int) -> None:
        if size_bytes > self.size_bytes - self._file.tell():
            raise _CutShort
        self._file.seek(size_bytes, os.SEEK_CUR)


def look(path: Path) -> Verdict:
    """Whether the file is an ONNX ModelProto, the beginning of one, or something else."""
    reader = _Reader(path)
    seen: dict[int, int] = {}
    try:
        for _ in range(_MAX_FIELDS):
            if reader.at_end():
                break
            _field(reader, seen)
    except _CutShort:
        return "cut_short" if _begins_a_model(seen) else "other"
    except ValueError:
        return "other"
    finally:
        reader.close()
    return "onnx" if _begins_a_model(seen) and seen.get(_GRAPH, 0) > 0 else "other"


def _field(reader: _Reader, seen: dict[int, int]) -> None:
    """Read one field: its value if a number, its length if it has one, is noted under its number."""
    tag = reader.varint()
    number, wire_type = tag >> 3, tag & 7
    if not 1 <= number <= _MAX_FIELD or _WIRE_TYPES.get(number, wire_type) != wire_type:
        raise ValueError("not a field of a model")
    if wire_type == _VARINT:
        seen[number] = reader.varint()
    elif wire_type == _BYTES:
        seen[number] = reader.varint()
        reader.skip(seen[number])
    elif wire_type in (_FIXED32, _FIXED64):
        reader.skip(4 if wire_type == _FIXED32 else 8)
    else:
        raise ValueError("a group, or no wire type at all")


def _begins_a_model(seen: dict[int, int]) -> bool:
    # A graph whose length was read but whose bytes are missing counts: that is how a cut file looks.
    return 1 <= seen.get(_IR_VERSION, 0) <= _MAX_IR_VERSION and len(seen) > 1
