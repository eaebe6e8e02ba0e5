"""From samples to engine inputs: halves, the task's own preprocessing, or made-up inputs where there are none."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson

from core.errors import InvalidInput
from core.media.tensors import tensors_from_json
from core.optimiser.converted import Tensors
from core.signature import NUMPY_DTYPES, Signature, TensorSpec
from core.tasks.base import Payload, Task
from core.validation.samples import Sizes, candidates

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One sample and where its bytes lie."""

    id: int
    sha256: str
    media_type: str
    label: str | None
    path: Path


AnySample = TypeVar("AnySample", bound=StoredSample)


def split(samples: Sequence[AnySample]) -> tuple[list[AnySample], list[AnySample]]:
    """Two halves, for calibrating and for judging, each with half of every label.

    The same samples always fall the same way. An odd one calibrates: what was not calibrated cannot be judged.
    """
    ordered = sorted(samples, key=lambda sample: (sample.label or "", sample.sha256))
    # Each in an order that labels have no part in, so that the first so many are of all of them.
    halves = (sorted(half, key=lambda sample: sample.sha256) for half in (ordered[::2], ordered[1::2]))
    calibrating, judging = halves
    return calibrating, judging


def engine_inputs(sample: StoredSample, task: Task, signature: Signature) -> dict[str, Array]:
    """What the engine would get for this sample in service: the first axis is the batch, of one item or more.

    Media go through the task's own `preprocess`; arrays and JSON are taken as they are, held against the
    signature. Raises InvalidInput, UnsupportedMedia, TooLarge. Blocks, and decodes: for a confined process.
    """
    data = sample.path.read_bytes()
    if sample.media_type == "application/x-npy":
        return _fit({_only(signature): _load(io.BytesIO(data))}, signature)
    if sample.media_type == "application/x-npz":
        return _fit(_load_all(data), signature)
    if sample.media_type == "application/json":
        return _fit(tensors_from_json(_json(data)["inputs"], signature), signature)
    return task.preprocess([Payload(data, sample.media_type)], task.example_parameters()).inputs


def synthetic(
    signature: Signature, preprocess: Mapping[str, Any], count: int, sizes: Sizes | None = None
) -> Iterator[Tensors]:
    """Made-up inputs, one item each, for a model without samples; whoever uses them has to say so.

    Floats are normal, whole numbers 0 or 1. `sizes` fills dynamic axes; left out, the likeliest is taken.
    """
    chosen = sizes or next(candidates(signature, preprocess))
    for seed in range(count):
        random = np.random.default_rng(seed)
        yield {spec.name: _made_up(spec, chosen.shape(spec, 1), random) for spec in signature.inputs}


def _made_up(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = NUMPY_DTYPES[spec.dtype]
    if dtype.kind == "O":
        return np.full(shape, "a sample", dtype=object)
    if dtype.kind in "fV":
        return random.standard_normal(shape, dtype=np.float32).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def _only(signature: Signature) -> str:
    """The name of a model's only input. Raises InvalidInput where there are several."""
    if len(signature.inputs) != 1:
        raise InvalidInput("The model has several inputs; upload an .npz that holds an array for each.")
    return signature.inputs[0].name


def _fit(arrays: Mapping[str, Array], signature: Signature) -> dict[str, Array]:
    names = ", ".join(spec.name for spec in signature.inputs)
    if {spec.name for spec in signature.inputs} != set(arrays):
        raise InvalidInput(
            f"The sample must hold an array for each of the model's inputs, and no others: {names}."
        )
    return {spec.name: _fitted(spec, arrays[spec.name]) for spec in signature.inputs}


def _fitted(spec: TensorSpec, array: Array) -> Array:
    """The array, with a batch axis where only that is missing. Raises InvalidInput for another shape or type."""
    if array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]
    fits = array.ndim == len(spec.shape) and all(
        known in (-1, size) for known, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise InvalidInput(
            f"The sample has the shape {list(array.shape)} for the input {spec.name!r}, and the model takes "
            f"{list(spec.shape)} (-1 is any size)."
        )
    dtype = NUMPY_DTYPES[spec.dtype]
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InvalidInput(f"The sample's input {spec.name!r} is {array.dtype}, and the model takes {spec.dtype}.")
    return array.astype(dtype, copy=False)


def _load(file: Any) -> Array:
    try:
        array: Array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InvalidInput("The sample's array cannot be read.") from error
    return array


def _load_all(data: bytes) -> dict[str, Array]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InvalidInput("The sample's arrays cannot be read.") from error


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("The sample is no JSON.") from error
