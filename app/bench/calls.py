"""What is sent: a caller's own files, or inputs made up as validation makes them."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from core.engines.base import Engine
from core.errors import InvalidInput, PlatformError, RunFailed, Unprocessable
from core.media.tensors import tensors_to_json
from core.signature import Signature
from core.store.manifest import Manifest
from core.tasks.base import Task
from core.validation.samples import Arrays, candidates, example_of, make_inputs

_MADE_UP = {"image": "a generated picture of 96 x 64", "audio": "a second of silence"}


@dataclass(frozen=True, slots=True)
class Call:
    """The body of a native inference call, its media type, and what to call it in a report."""

    body: bytes
    media_type: str
    name: str


def read_file(path: Path) -> Call:
    """A file as a call: what ends with .json is a call's whole body, anything else is one piece of media.

    Raises InvalidInput for one that cannot be read or is empty.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"The file {path.name} cannot be read: {error.strerror}.") from error
    if not body:
        raise InvalidInput(f"The file {path.name} is empty.")
    return Call(body, mimetypes.guess_type(path.name)[0] or "application/octet-stream", path.name)


def make_call(manifest: Manifest, task: Task, signature: Signature, engine: Engine | None) -> Call:
    """A call for a model of which only its signature is known. Raises Unprocessable where none can be made up."""
    if task.modality == "tensor":
        return _tensors(_inputs_that_run(manifest, signature, engine))
    example = example_of(task)
    if example is not None:
        return Call(example.data, example.media_type, _MADE_UP.get(task.modality, f"a made-up {task.modality}"))
    raise Unprocessable(f"Nothing can be made up for {task.modality} models; give a file with --input.")


def describe(calls: Sequence[Call]) -> str:
    """What is sent, in a few words."""
    size = sum(len(call.body) for call in calls)
    names = ", ".join(call.name for call in calls[:3]) + (" …" if len(calls) > 3 else "")
    return f"{names} ({size:,} bytes)"


def _inputs_that_run(manifest: Manifest, signature: Signature, engine: Engine | None) -> Arrays:
    failure: PlatformError | None = None
    for sizes in candidates(signature, manifest.preprocess):
        inputs = make_inputs(signature, sizes, 1)
        if engine is None:
            return inputs
        try:
            engine.run(inputs)
        except RunFailed as error:
            failure = failure or error
        else:
            return inputs
    raise Unprocessable("This model does not run on generated inputs; give a file with --input.") from failure


def _tensors(inputs: Arrays) -> Call:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
    body = orjson.dumps({"inputs": tensors_to_json(inputs)}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Call(body, "application/json", f"generated {shapes}")
