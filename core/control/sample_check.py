"""What a sample is, by its content alone, and whether a model of this kind can take it.

Nothing is decoded and nothing unpickled here: headers are read, and what they promise is held against the bytes.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import orjson

from core.errors import TooLarge, UnsupportedMedia
from core.media.headers import describe
from core.media.images import probe
from core.store.paths import shown

NPY, NPZ, JSON, TEXT = "application/x-npy", "application/x-npz", "application/json", "text/plain"
_MAX_ARRAYS: Final = 64


def media_type_of(data: bytes, modality: str, name: str, *, max_pixels: int, max_bytes: int) -> str:
    """The media type of a sample for a task of this modality. Raises UnsupportedMedia, TooLarge."""
    if len(data) > max_bytes:
        raise TooLarge(f"The sample {shown(name)} is larger than {max_bytes} bytes (samples.max_sample_bytes).")
    if not data:
        raise UnsupportedMedia(f"The sample {shown(name)} is empty.")
    check = _CHECKS.get(modality)
    if check is None:
        raise UnsupportedMedia(f"Samples for {modality} models cannot be taken yet.")
    return check(data, name, max_pixels, max_bytes)


def _image(data: bytes, name: str, max_pixels: int, max_bytes: int) -> str:
    try:
        info = probe(data)
    except UnsupportedMedia as error:
        raise UnsupportedMedia(f"The sample {shown(name)}: {error.message}") from error
    if info.width * info.height > max_pixels:
        raise TooLarge(f"The sample {shown(name)} has more than {max_pixels} pixels (inference.max_pixels).")
    return f"image/{info.format.lower()}"


def _arrays(data: bytes, name: str, max_pixels: int, max_bytes: int) -> str:
    if data.startswith(b"\x93NUMPY"):
        _check_npy(io.BytesIO(data), len(data), name)
        return NPY
    if data.startswith(b"PK\x03\x04"):
        _check_npz(data, name, max_bytes)
        return NPZ
    try:
        call = orjson.loads(data)
    except orjson.JSONDecodeError:
        call = None
    if isinstance(call, dict) and "inputs" in call:
        return JSON
    raise UnsupportedMedia(
        f"The sample {shown(name)} is {describe(data)}; this model takes tensors: upload .npy, .npz, or JSON with "
        "`inputs` as for inference."
    )


def _text(data: bytes, name: str, max_pixels: int, max_bytes: int) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsupportedMedia(f"The sample {shown(name)} is not UTF-8 text.") from error
    return TEXT


_CHECKS: Final[Mapping[str, Callable[[bytes, str, int, int], str]]] = {
    "image": _image,
    "tensor": _arrays,
    "text": _text,
}


def _check_npz(data: bytes, name: str, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > _MAX_ARRAYS or any(not member.filename.endswith(".npy") for member in members):
                raise UnsupportedMedia(f"The sample {shown(name)} is a zip, but no .npz of at most 64 arrays.")
            if sum(member.file_size for member in members) > max_bytes:
                raise TooLarge(f"The sample {shown(name)} unpacks to more than {max_bytes} bytes.")
            for member in members:
                with archive.open(member) as file:
                    _check_npy(file, member.file_size, name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise UnsupportedMedia(f"The sample {shown(name)} is a damaged .npz.") from error


def _check_npy(file: Any, size_bytes: int, name: str) -> None:
    """Read the header alone (numpy.org/doc/stable/reference/generated/numpy.lib.format.html)."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, EOFError, SyntaxError) as error:
        raise UnsupportedMedia(f"The sample {shown(name)} is a damaged .npy.") from error
    if dtype.hasobject:
        raise UnsupportedMedia(f"The sample {shown(name)} holds Python objects (a pickle); save plain numbers.")
    if math.prod(shape) * dtype.itemsize > size_bytes:
        raise UnsupportedMedia(f"The sample {shown(name)} is cut short: its header promises more than it holds.")
