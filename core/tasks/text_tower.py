"""The text side of a two-tower model: a model of its own in the package, run here, its vectors kept.

It is run by ONNX Runtime in the thread that needs it. That is seldom: the same few labels are asked for again and
again, and a vector is made once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.errors import EngineUnavailable, InvalidPackage, RunFailed
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload
from core.tasks.text_input import TextConfig, TextInput
from core.tasks.vectors import Vectors, checked, normalized

CACHED_TEXTS: Final = 10_000
"""That are kept; a vector of 512 values takes 2 KiB."""
BATCH: Final = 32
"""Texts that are run at a time: more would take memory for no gain."""
_THREADS: Final = 2
_LOG_ERRORS: Final = 3
_DTYPES: Final = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
}


class TextTower:
    """Bound to a model file of the package. Raises InvalidPackage where it cannot be loaded or takes no tokens."""

    def __init__(self, root: Path, model: str, output: str | None, texts: TextConfig, max_bytes: int) -> None:
        self._session = _load(inside(root, model))
        signature = Signature(_specs(self._session.get_inputs()), _specs(self._session.get_outputs()))
        self._input = TextInput(texts, signature, root, max_bytes)
        self._output = output or _pooled_output(signature)
        if self._output not in {spec.name for spec in signature.outputs}:
            raise InvalidPackage(f"The text model has no output {self._output[:80]!r}.")
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Float32 [texts, size], each of length 1. Raises InvalidInput for texts that are blank or too long."""
        found = {text: kept for text in texts if (kept := self._take(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        for first in range(0, len(missing), BATCH):
            some = missing[first : first + BATCH]
            found.update(zip(some, self._run(some), strict=True))
        self._keep({text: found[text] for text in missing})
        return np.stack([found[text] for text in texts])

    def _take(self, text: str) -> Vectors | None:
        with self._lock:
            vector = self._kept.get(text)
            if vector is not None:
                self._kept.move_to_end(text)
            return vector

    def _keep(self, found: dict[str, Vectors]) -> None:
        with self._lock:
            self._kept.update(found)
            while len(self._kept) > CACHED_TEXTS:
                self._kept.popitem(last=False)

    def _run(self, texts: Sequence[str]) -> Vectors:
        prepared = self._input.prepare([Payload(text.encode("utf-8", "surrogatepass")) for text in texts])
        try:
            (values,) = self._session.run([self._output], prepared.inputs)
        except Exception as error:  # the library's own classes are none of ours
            raise RunFailed("The text model failed on the labels.") from error
        if values.ndim != 2 or len(values) != len(texts):
            raise RunFailed(
                f"The text model answered {list(values.shape)} for {len(texts)} texts: no vector each."
            )
        return normalized(checked(values.astype(np.float32, copy=False)))


def inside(root: Path, name: str) -> Path:
    """A file of the package. Raises InvalidPackage where it is missing, or elsewhere."""
    if "\0" in name or not (path := (root / name).resolve()).is_relative_to(root.resolve()) or not path.is_file():
        raise InvalidPackage(f"The file {name[:80]!r} is not in the model's package.")
    return path


def _load(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailable("The text side needs ONNX Runtime: pip install onnxruntime.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidPackage("The text model cannot be loaded; export it again as ONNX.") from error


def _specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            node.name,
            _DTYPES.get(node.type, "BYTES"),
            tuple(side if isinstance(side, int) else -1 for side in node.shape),
        )
        for node in nodes
    )


def _pooled_output(signature: Signature) -> str:
    """The first output that holds a vector a text."""
    for spec in signature.outputs:
        if len(spec.shape) == 2 and spec.dtype.startswith("FP"):
            return spec.name
    raise InvalidPackage("The text model has no output of one vector a text, [batch, size]; export it pooled.")
