"""The body of an Open Inference Protocol v2 `infer` call, read: JSON, and after it the binary tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from core.errors import BadRequest, InvalidInput, MalformedBody
from core.media.oip_tensors import from_binary, from_json, read_shape
from core.signature import NUMPY_DTYPES, Signature, TensorSpec

LAST_PRIORITY: Final = 9
MAX_ID_CHARACTERS: Final = 1024
_MAX_TIMEOUT_US: Final = 1 << 53
_UNSUPPORTED: Final = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
_DATA: Final = object()

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the caller wants, as binary data or as JSON."""

    name: str
    binary: bool


@dataclass(slots=True)
class OipCall:
    """One call: inputs by name, the outputs wanted in their order, our priority (0 first), seconds to live."""

    inputs: dict[str, np.ndarray[Any, Any]]
    outputs: list[RequestedOutput]
    id: str = ""
    priority: int | None = None
    timeout_s: float | None = None
    parameters: Json = field(default_factory=dict)


def read_infer(signature: Signature, body: bytes, header_bytes: int | None) -> OipCall:
    """Read a body whose first `header_bytes` are JSON; None where all of it is.

    Raises BadRequest or InvalidInput; each message says which tensor, what was expected and what came.
    """
    whole = memoryview(body)
    if header_bytes is not None and header_bytes > len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length is {header_bytes}, but the body has only {len(body)} bytes."
        )
    binary = None if header_bytes is None else whole[header_bytes:]
    call = _object(_json(whole[:header_bytes]), "The request")
    parameters = _parameters(call, "the request")
    return OipCall(
        inputs=_inputs(call.get("inputs"), signature, binary),
        outputs=_outputs(call.get("outputs"), signature, _flag(parameters, "binary_data_output") or False),
        id=_id(call.get("id")),
        priority=_priority(parameters),
        timeout_s=_timeout_s(parameters),
        parameters=parameters,
    )


def read_timeout_s(head: bytes, header_bytes: int | None, *, whole: bool) -> float | None:
    """The seconds to live that a body asks for, as far as its head tells; None also where it cannot be read.

    What is wrong with it is `read_infer`'s to say.
    """
    if not whole and (header_bytes is None or header_bytes > len(head)):
        return None
    try:
        call = orjson.loads(memoryview(head)[:header_bytes])
        return _timeout_s(_parameters(call, "the request")) if isinstance(call, dict) else None
    except (orjson.JSONDecodeError, BadRequest):
        return None


def _json(text: memoryview) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(
            f"The request is not valid JSON (line {error.lineno}, column {error.colno})."
        ) from error


def _object(value: Any, what: str) -> Json:
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object.")
    return value


def _parameters(holder: Json, what: str) -> Json:
    value = holder.get("parameters")
    if value is None:
        return {}
    return _object(value, f"`parameters` of {what}")


def _id(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_ID_CHARACTERS:
        raise BadRequest(f"The `id` of the request must be a string of at most {MAX_ID_CHARACTERS} characters.")
    return value


def _priority(parameters: Json) -> int | None:
    """The protocol's 0 is the default and its 1 the first; ours run from 0 to 9, and None is the caller's own."""
    value = _whole(parameters, "priority")
    if not value:
        return None
    return min(value - 1, LAST_PRIORITY)


def _timeout_s(parameters: Json) -> float | None:
    value = _whole(parameters, "timeout")
    return min(value, _MAX_TIMEOUT_US) / 1e6 if value else None


def _whole(parameters: Json, name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise BadRequest(f"The parameter `{name}` must be a whole number that is not negative.")
    return value


def _flag(parameters: Json, name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"The parameter `{name}` must be true or false.")
    return value


def _refuse_unsupported(parameters: Json) -> None:
    if any(name in parameters for name in _UNSUPPORTED):
        raise BadRequest("Shared memory is not supported: send and ask for the tensors themselves.")
    if parameters.get("classification"):
        raise BadRequest("The classification extension is not supported: ask for the output tensor itself.")


def _inputs(value: Any, signature: Signature, binary: memoryview | None) -> dict[str, np.ndarray[Any, Any]]:
    if not isinstance(value, list) or not value:
        raise BadRequest("The request must have `inputs`, a list of tensors.")
    specs = {spec.name: spec for spec in signature.inputs}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    at = 0
    for item in value:
        spec = _spec(_object(item, "Each of `inputs`"), specs)
        if spec.name in arrays:
            raise BadRequest(f"Input {spec.name!r} is there twice.")
        arrays[spec.name], used = _input(item, spec, binary, at)
        at += used
    if binary is not None and at != len(binary):
        raise BadRequest(f"The body has {len(binary) - at} bytes of binary data that belong to no input.")
    return arrays


def _spec(item: Json, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    name = item.get("name")
    spec = specs.get(name) if isinstance(name, str) else None
    if spec is None:
        raise InvalidInput(f"Input {str(name)[:64]!r} is not known; the model takes {', '.join(specs)}.")
    datatype = item.get("datatype")
    if not isinstance(datatype, str) or datatype not in NUMPY_DTYPES:
        raise BadRequest(f"The `datatype` of input {name!r} is none of {', '.join(NUMPY_DTYPES)}.")
    if datatype != spec.dtype:
        raise InvalidInput(f"Input {name!r} is {spec.dtype}, but came as {datatype}.")
    return spec


def _input(item: Json, spec: TensorSpec, binary: memoryview | None, at: int) -> tuple[np.ndarray[Any, Any], int]:
    """The array, and how many bytes of the binary data it took."""
    shape = read_shape(spec.name, item.get("shape"))
    parameters = _parameters(item, f"input {spec.name!r}")
    _refuse_unsupported(parameters)
    size = _whole(parameters, "binary_data_size")
    data = item.get("data", _DATA)
    if size is None:
        if data is _DATA:
            raise BadRequest(f"Input {spec.name!r} has neither `data` nor the parameter `binary_data_size`.")
        return from_json(spec.name, spec.dtype, shape, data), 0
    if data is not _DATA:
        raise BadRequest(f"Input {spec.name!r} has both `data` and the parameter `binary_data_size`.")
    if binary is None:
        raise BadRequest("Binary data needs the header Inference-Header-Content-Length, the length of the JSON.")
    if size > len(binary) - at:
        raise BadRequest(
            f"Input {spec.name!r} has a `binary_data_size` of {size}, but only {len(binary) - at} bytes are left."
        )
    return from_binary(spec.name, spec.dtype, shape, binary[at : at + size]), size


def _outputs(value: Any, signature: Signature, binary: bool) -> list[RequestedOutput]:
    if value is None or value == []:
        return [RequestedOutput(spec.name, binary) for spec in signature.outputs]
    if not isinstance(value, list):
        raise BadRequest("`outputs` must be a list.")
    known = {spec.name for spec in signature.outputs}
    wanted: dict[str, RequestedOutput] = {}
    for item in value:
        name = _object(item, "Each of `outputs`").get("name")
        if not isinstance(name, str) or name not in known:
            names = ", ".join(spec.name for spec in signature.outputs)
            raise InvalidInput(f"Output {str(name)[:64]!r} is not known; the model gives {names}.")
        if name in wanted:
            raise BadRequest(f"Output {name!r} is asked for twice.")
        parameters = _parameters(item, f"output {name!r}")
        _refuse_unsupported(parameters)
        own = _flag(parameters, "binary_data")
        wanted[name] = RequestedOutput(name, binary if own is None else own)
    return list(wanted.values())
