"""Where an ONNX model says that its weights lie. Nothing is opened here; that is the point.

Source: onnx/docs/ExternalData.md.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from core.errors import InvalidPackage
from core.store.paths import check_member, shown
from core.validation.onnx_file import tensors

_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL


def check_tree(root: Path) -> None:
    """Raise InvalidPackage when the package holds anything but plain files and directories."""
    for directory, folders, files in os.walk(root):
        for name in (*folders, *files):
            mode = Path(directory, name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InvalidPackage(f"The package's {shown(name)} is a link or a device; put a real file there.")


def check_external_data(model: Any, folder: Path) -> int:
    """Check every reference to a file outside the model and return how many tensors have one.

    `folder` holds the model. Raises InvalidPackage for a place outside it, a link, a missing or a short file.
    """
    count = 0
    for tensor in tensors(model):
        if tensor.data_location == _EXTERNAL or tensor.external_data:
            _check_reference(tensor, folder)
            count += 1
    return count


def _check_reference(tensor: Any, folder: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    whose = f"The tensor {shown(tensor.name)}"
    location = entries.get("location", "")
    if not location:
        raise InvalidPackage(f"{whose} has external data without a location; export the model again.")
    try:
        relative = check_member(location)
    except InvalidPackage as error:
        raise InvalidPackage(
            f"{whose} keeps its data outside the package, in {shown(location)}; export it with the data in a file "
            "beside the model, and put both into the zip."
        ) from error
    size_bytes = _plain_file_bytes(folder, relative.parts, f"{whose} keeps its data in {shown(location)}")
    offset, length = _number(entries, "offset", whose), _number(entries, "length", whose)
    if offset + length > size_bytes:
        raise InvalidPackage(
            f"{whose} reads past the end of {shown(location)}: {offset + length} of {size_bytes} bytes; the file "
            "is cut short or belongs to another export."
        )


def _plain_file_bytes(folder: Path, parts: tuple[str, ...], what: str) -> int:
    """Size of a file below `folder`, with no link at any step of the way."""
    path = folder
    for place, part in enumerate(parts, 1):
        path = path / part
        try:
            state = path.lstat()
        except OSError as error:
            raise InvalidPackage(
                f"{what}, which is not in the package; upload a zip that holds the model and that file."
            ) from error
        if place < len(parts) and not stat.S_ISDIR(state.st_mode):
            raise InvalidPackage(f"{what}, and a step of that path is not a folder but a link or a file.")
    if not stat.S_ISREG(state.st_mode):
        raise InvalidPackage(
            f"{what}, which is not a plain file but a link or a device; put the file itself there."
        )
    if state.st_nlink != 1:
        raise InvalidPackage(f"{what}, which is a hard link to a file that lies elsewhere too; copy it instead.")
    return state.st_size


def _number(entries: dict[str, str], key: str, whose: str) -> int:
    text = entries.get(key, "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise InvalidPackage(f"{whose} has external data with the {key} {shown(text)}, which is no byte count.")
    return int(text)
