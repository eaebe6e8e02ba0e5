"""ONNX Runtime sessions of several widths on one copy of the weights.

A session's threads are fixed when it is opened, and what two sessions could share are only weights that the
optimiser leaves as they are: it does not leave those of a convolution. So the model is optimised once, into files
that are opened once for each width: their weights, in the order that the kernels want, are mapped into memory,
where the pages are the same. The files are deleted as soon as the sessions are open; the pages stay until the last
session is closed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final

_WEIGHTS: Final = "weights"
_MIN_BYTES: Final = 1024
"""Smaller tensors stay in the graph: a mapping of its own costs a page or two."""
_ALIGNMENT: Final = 64
_BUFFER: Final = re.compile(r"\|(\d+);(\d+)")
_ROOM: Final = 3
"""The folder of temporary files must have room for so many times the model."""


def open_sharing(
    library: ModuleType, artifact: Path, widths: Sequence[int], make_options: Callable[[int], Any]
) -> dict[int, Any]:
    """A session for each width, on cpu. Raises OSError without room for the files, and what the runtime raises."""
    with tempfile.TemporaryDirectory(prefix="pulvinar-") as folder:
        if shutil.disk_usage(folder).free < _ROOM * _size_bytes(artifact):
            raise OSError("There is too little room for an optimised copy of the model.")
        path = Path(folder) / "model.onnx"
        _optimise(library, artifact, path, make_options(1))
        return {width: _session(library, path, make_options(width)) for width in widths}


def _optimise(library: ModuleType, artifact: Path, into: Path, options: Any) -> None:
    options.optimized_model_filepath = str(into)
    prefix = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{prefix}file_name", _WEIGHTS)
    options.add_session_config_entry(f"{prefix}min_size_in_bytes", str(_MIN_BYTES))
    reader = _onnx()
    if reader is not None:
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    library.InferenceSession(str(artifact), options, ["CPUExecutionProvider"])
    if reader is not None:
        _align(reader, into)


def _onnx() -> ModuleType | None:
    try:
        return import_module("onnx")
    except ImportError:
        return None


def _align(reader: ModuleType, path: Path) -> None:
    """Move packed weights to where the kernels may read them: the runtime writes them anywhere.

    A kernel that loads 64 bytes at once from another place ends the process (seen with ONNX Runtime 1.31.1). An
    entry reads `kernel+hash|offset;length;…`, with a part of its own for each buffer.
    """
    model = reader.load(str(path), load_external_data=False)
    moved = False
    with (path.parent / _WEIGHTS).open("r+b") as weights:
        for entry in _packed(model):
            aligned = _BUFFER.sub(lambda found: _place(weights, found), entry.value)
            moved = moved or aligned != entry.value
            entry.value = aligned
    if moved:
        reader.save(model, str(path))


def _packed(model: Any) -> list[Any]:
    """Where the file says that packed weights are."""
    return [
        entry
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key.startswith("prepacked")
    ]


def _place(weights: BinaryIO, found: re.Match[str]) -> str:
    """The buffer's new place, at the file's end; the same where it is good already."""
    offset, length = int(found[1]), int(found[2])
    if offset % _ALIGNMENT == 0:
        return found[0]
    weights.seek(offset)
    content = weights.read(length)
    end = weights.seek(0, 2)
    start = -(-end // _ALIGNMENT) * _ALIGNMENT
    weights.write(bytes(start - end) + content)
    return f"|{start};{length}"


def _session(library: ModuleType, path: Path, options: Any) -> Any:
    # It is optimised already, and what the optimiser changed would be a copy again.
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    return library.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def _size_bytes(artifact: Path) -> int:
    """The model's size with the files beside it, among which may be its weights."""
    return sum(file.stat().st_size for file in artifact.parent.rglob("*") if file.is_file())
