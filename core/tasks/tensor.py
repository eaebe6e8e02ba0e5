"""`tensor`: the model as it is. Tensors go in by name and come out by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from core.errors import UnsupportedMedia
from core.signature import Signature, dtype_name
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Task, Tensors
from core.tasks.config import TaskConfig, parse


class Nothing(TaskConfig):
    """A section that must be empty."""


class TensorConfig(TaskConfig):
    """Nothing to configure."""

    preprocess: Nothing = Nothing()
    postprocess: Nothing = Nothing()


class TensorTask(Task):
    """One answer for the whole request: `{"outputs": [{name, dtype, shape, data}]}`, data flat, row by row."""

    name: ClassVar[str] = "tensor"
    modality: ClassVar[str] = "tensor"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage for any field: this task has none."""
        parse(TensorConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        self.check(config)
        self._inputs = ", ".join(spec.name for spec in signature.inputs)

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """Raises UnsupportedMedia: tensors come as JSON, and need no preparation."""
        raise UnsupportedMedia(f'This model takes tensors: send JSON {{"inputs": …}} with {self._inputs}.')

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One dict in a list; NaN and infinities become null, which JSON can say."""
        return [{"outputs": [_to_json(name, value) for name, value in outputs.items()]}]


def _to_json(name: str, value: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"name": name, "dtype": dtype_name(value.dtype), "shape": list(value.shape), "data": _data(value)}


def _data(value: np.ndarray[Any, Any]) -> list[Any]:
    flat: list[Any] = value.ravel().tolist()
    if value.dtype.kind in "SUO":
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in flat]
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        return [v if finite else None for v, finite in zip(flat, np.isfinite(value).ravel(), strict=True)]
    return flat
