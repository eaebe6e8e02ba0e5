"""An engine without a library, for tests and for trying the platform out: it answers `input x scale`, and
takes time and memory, fails, crashes and hangs to order.

Its artifact is a JSON file:

    {"signature": {"inputs": […], "outputs": […]}, "scale": 2.0, "latency_ms": 5, "per_item_ms": 0,
     "load_ms": 0, "memory_bytes": 0, "fail": null, "fail_on": null}

`fail` is `load` (load raises), `run` (run raises), `crash` (run ends the process) or `hang` (run never returns
before `close`). With `fail_on`, only a batch that holds that value does so.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.engines.extras import choice, refuse_unknown
from core.engines.inputs import ordered
from core.errors import LoadFailed, RunFailed
from core.signature import NUMPY_DTYPES, Signature, TensorSpec


class FakeModel(BaseModel):
    """The artifact's fields; times are in milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    signature: dict[str, list[dict[str, Any]]]
    scale: float = 2.0
    latency_ms: float = Field(5, ge=0)
    per_item_ms: float = Field(0, ge=0)
    load_ms: float = Field(0, ge=0)
    memory_bytes: int = Field(0, ge=0)
    fail: Literal["load", "run", "crash", "hang"] | None = None
    fail_on: float | str | None = None


class FakeEngine(Engine):
    """See the module. Each output takes the input at its place, or the first, times `scale`."""

    name: ClassVar[str] = "fake"
    formats: ClassVar[tuple[str, ...]] = ("fake",)
    concurrent: ClassVar[bool] = True

    def __init__(self) -> None:
        self._model: FakeModel | None = None
        self._signature = Signature((), ())
        self._ballast: np.ndarray[Any, Any] | None = None
        self._closed = threading.Event()

    @classmethod
    def info(cls) -> EngineInfo:
        """Always available."""
        return EngineInfo(cls.name, available=True, version="1", devices=("cpu",), precisions=("fp32",))

    @classmethod
    def choices(cls, device: str) -> Mapping[str, Sequence[str]]:
        """One of one."""
        return {"precision": ("fp32",)}

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Read the JSON, sleep and allocate as it says. Raises LoadFailed."""
        refuse_unknown(options.extra, ("precision",))
        choice(options.extra, "precision", ("fp32",))
        model, self._signature = _read(artifact)
        time.sleep(model.load_ms / 1000)
        if model.fail == "load":
            raise LoadFailed("The fake model was told to fail while loading.")
        # Ones, not zeros: the pages must really be there.
        self._ballast = np.ones(model.memory_bytes, np.uint8) if model.memory_bytes else None
        self._closed.clear()
        self._model = model
        return self._signature

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Sleep `latency_ms` and `per_item_ms` for each item, then answer. Raises RunFailed."""
        model = self._model
        if model is None:
            raise RunFailed("The model is not loaded.")
        arrays = ordered(inputs, self._signature)
        time.sleep((model.latency_ms + model.per_item_ms * _items(arrays)) / 1000)
        if model.fail is not None and _strikes(model.fail_on, arrays):
            self._fail(model.fail)
        return {
            spec.name: _answer(arrays[min(place, len(arrays) - 1)], spec, model.scale)
            for place, spec in enumerate(self._signature.outputs)
        }

    def memory(self) -> int:
        """`memory_bytes` while loaded."""
        return 0 if self._ballast is None else self._ballast.nbytes

    def close(self) -> None:
        """Free the memory and end every hanging run."""
        self._model = None
        self._ballast = None
        self._closed.set()

    def _fail(self, how: str) -> NoReturn:
        if how == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "hang":
            self._closed.wait()
            raise RunFailed("The model was closed while it ran.")
        raise RunFailed("The fake model was told to fail on this batch.")


def _read(artifact: Path) -> tuple[FakeModel, Signature]:
    try:
        model = FakeModel.model_validate_json(artifact.read_bytes())
        signature = Signature.from_json(model.signature)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise LoadFailed(f"The fake model cannot be read: {where}: {first['msg']}.") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise LoadFailed("The fake model cannot be read: its signature needs inputs and outputs.") from error
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype not in NUMPY_DTYPES:
            raise LoadFailed(f"The tensor {spec.name} has the unknown dtype {spec.dtype}.")
    if not signature.inputs:
        raise LoadFailed("The fake model needs at least one input.")
    return model, signature


def _items(arrays: list[np.ndarray[Any, Any]]) -> int:
    return int(arrays[0].shape[0]) if arrays[0].ndim else 1


def _strikes(fail_on: float | str | None, arrays: list[np.ndarray[Any, Any]]) -> bool:
    if fail_on is None:
        return True
    return any(_holds(array, fail_on) for array in arrays)


def _holds(array: np.ndarray[Any, Any], value: float | str) -> bool:
    if isinstance(value, str):
        return array.dtype.kind == "O" and any(item in (value, value.encode()) for item in array.flat)
    return array.dtype.kind != "O" and bool((array == value).any())


def _answer(source: np.ndarray[Any, Any], spec: TensorSpec, scale: float) -> np.ndarray[Any, Any]:
    dtype = NUMPY_DTYPES[spec.dtype]
    values = source if source.dtype.kind in "Ob" else source * scale
    fits = len(spec.shape) == values.ndim and all(
        want in (-1, got) for want, got in zip(spec.shape[1:], values.shape[1:], strict=True)
    )
    if not fits:
        values = _reshaped(values, spec.shape)
    return values.astype(dtype)


def _reshaped(values: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Each item's values cut or repeated to fill the output's shape; its dynamic dimensions become 1."""
    inner = tuple(1 if size == -1 else size for size in shape[1:])
    if not shape or not values.ndim:
        return np.resize(values, inner if not shape else (1, *inner))
    count = int(np.prod(inner))
    rows = [np.resize(item, count) for item in values]
    return np.stack(rows).reshape(len(values), *inner) if rows else np.empty((0, *inner), values.dtype)
