"""ONNX models and OpenVINO's own IR, run by OpenVINO: the fastest on most Intel processors.

What it is and takes: OpenVINO's documentation, "CPU Device" and "High-level Performance Hints".
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, ClassVar, Final

import numpy as np

from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.engines.cores import cores_available
from core.engines.extras import choice, refuse_unknown, whole
from core.engines.heap import Growth, trim_heap
from core.engines.inputs import ordered
from core.engines.sentences import sentence
from core.errors import EngineUnavailable, LoadFailed, RunFailed
from core.signature import NUMPY_DTYPES, Signature, TensorSpec

_HINT: Final = "pip install 'pulvinar[openvino]'"
_OPTIONS: Final = ("precision", "hint", "streams")
_PRECISIONS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_HINTS: Final = ("latency", "throughput")
_MOST_STREAMS: Final = 1024
_BF16: Final = NUMPY_DTYPES["BF16"]
_INT32: Final = np.iinfo(np.int32)
_WIDE: Final = ("INT64", "UINT64", "UINT32")
_DTYPES: Final = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "bf16": "BF16",
}
# "Exception from src/…cpp:84:", "Check '…' failed at src/…cpp:117:"
_NOISE: Final = re.compile(
    r"Exception from \S+:\d+:\s*|Caught exception:\s*|(?:Check '[^\n]*' )?failed at \S+:\d+:?\s*"
)


class OpenvinoEngine(Engine):
    """One compiled model and the requests that runs take turns with.

    `extra` takes `precision` (`fp32`, `bf16`, `fp16`: what floating-point operators compute in; int8 operators of
    the model stay int8), `hint` (`latency`, `throughput`) and `streams` (runs side by side, each with the threads
    asked for; unset leaves it to the hint).
    """

    name: ClassVar[str] = "openvino"
    formats: ClassVar[tuple[str, ...]] = ("onnx", "openvino")
    concurrent: ClassVar[bool] = True

    def __init__(self) -> None:
        self._model: Any = None
        self._signature = Signature((), ())
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._memory_bytes = 0

    @classmethod
    def info(cls) -> EngineInfo:
        """Available when the library imports; devices are `cpu`, `gpu:N` and `npu`, precisions the processor's."""
        try:
            library = _library()
        except EngineUnavailable as error:
            return EngineInfo(cls.name, available=False, reason=error.message, hint=_HINT)
        core = library.Core()
        return EngineInfo(
            cls.name,
            available=True,
            version=library.__version__.split("-")[0],
            devices=tuple(_our_name(device) for device in core.available_devices),
            precisions=_precisions(core, "CPU"),
        )

    @classmethod
    def choices(cls, device: str) -> Mapping[str, Sequence[str]]:
        """The precisions that floating-point operators can compute in there, and both hints."""
        core = _library().Core()
        able = _precisions(core, _device(core, device))
        return {"precision": tuple(word for word in able if word in _PRECISIONS), "hint": _HINTS}

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Read and compile; an `.xml` finds its `.bin` beside it. Raises LoadFailed or EngineUnavailable."""
        library = _library()
        core = library.Core()
        device = _device(core, options.device)
        config = _config(options, device, _precisions(core, device))
        self._growth = Growth()
        try:
            file_bytes = artifact.stat().st_size + _weights_bytes(artifact)
            model = _read(library, core, artifact)
            signature = Signature(_specs(model.inputs, "input"), _specs(model.outputs, "output"))
            compiled = core.compile_model(model, device, config)
        except LoadFailed:
            raise
        except Exception as error:
            raise LoadFailed(f"OpenVINO cannot load the model: {_sentence(error, artifact)}") from error
        self._model, self._signature, self._requests = compiled, signature, SimpleQueue()
        self._file_bytes, self._memory_bytes = file_bytes, self._growth.bytes(file_bytes)
        return signature

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch; nothing is cast. Safe from several threads at once. Raises RunFailed."""
        model, requests = self._model, self._requests
        if model is None:
            raise RunFailed("The model is not loaded.")
        # Kept until the run has ended: the request reads them in place.
        arrays = [np.asarray(array, order="C") for array in ordered(inputs, self._signature)]
        _refuse_wide(arrays, self._signature)
        try:
            request = _request(model, requests)
            for place, array in enumerate(arrays):
                request.set_input_tensor(place, _to_runtime(array))
            # Not `infer`: on one thread it loses the errors of operators and answers what was in memory (2026.4).
            request.start_async()
            request.wait()
            answer = {
                spec.name: _from_runtime(request.get_output_tensor(place), spec)
                for place, spec in enumerate(self._signature.outputs)
            }
        except Exception as error:  # a request that failed is not used again
            raise RunFailed(f"OpenVINO failed on this batch: {_sentence(error)}") from error
        requests.put(request)  # nosec B113  # a queue, no HTTP
        return answer

    def shrink(self, inputs: Tensors) -> None:
        """See Engine. What compiling has freed goes to the system."""
        trim_heap()
        self._memory_bytes = self._growth.bytes(self._file_bytes)

    def memory(self) -> int:
        """The larger of the files' size and of the process's growth while it loaded and warmed; 0 once closed."""
        return self._memory_bytes

    def close(self) -> None:
        """Drop the model; runs that are under way keep it until they end."""
        self._model = None
        self._requests = SimpleQueue()
        self._memory_bytes = 0
        trim_heap()


def _library() -> ModuleType:
    # OpenVINO brings a package that reports its use to its maker. It can do without; then nothing is ever sent.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return import_module("openvino")
    except Exception as error:
        raise EngineUnavailable(f"OpenVINO is not installed: {_HINT}.") from error


def _our_name(device: str) -> str:
    kind, _, index = device.lower().partition(".")
    return f"{kind}:{index or 0}" if kind == "gpu" else kind if not index else f"{kind}:{index}"


def _device(core: Any, wanted: str) -> str:
    named = {_our_name(device): str(device) for device in core.available_devices}
    if wanted not in named:
        raise EngineUnavailable(f"OpenVINO has no device {wanted!r} here; it has {', '.join(named)}.")
    return named[wanted]


def _precisions(core: Any, device: str) -> tuple[str, ...]:
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    return tuple(word.lower() for word in ("FP32", "BF16", "FP16", "INT8") if word in able)


def _config(options: EngineOptions, device: str, precisions: Sequence[str]) -> dict[str, Any]:
    refuse_unknown(options.extra, _OPTIONS)
    precision = choice(options.extra, "precision", tuple(_PRECISIONS))
    if precision not in precisions:
        raise EngineUnavailable(f"The device {options.device} does not compute in {precision}.")
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "PERFORMANCE_HINT": choice(options.extra, "hint", _HINTS).upper(),
    }
    streams = whole(options.extra, "streams", 0, _MOST_STREAMS)
    if streams:
        config["NUM_STREAMS"] = streams
    if device == "CPU":
        threads = max(options.widths, default=options.threads) or cores_available()
        # For all streams together. Pinned threads of several models would sit on the same few cores.
        config |= {"INFERENCE_NUM_THREADS": threads * (streams or 1), "ENABLE_CPU_PINNING": False}
    return config


def _read(library: ModuleType, core: Any, artifact: Path) -> Any:
    """By what it is, never by trying every parser that the library has."""
    with artifact.open("rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith((b"<?xml", b"<net")):
        weights = artifact.with_suffix(".bin")
        if not weights.is_file():
            raise LoadFailed("The .bin file of the OpenVINO model is missing: it must lie beside the .xml file.")
        return core.read_model(str(artifact), str(weights))
    frontend = library.frontend.FrontEndManager().load_by_framework("onnx")
    return frontend.convert(frontend.load(str(artifact)))


def _weights_bytes(artifact: Path) -> int:
    weights = artifact.with_suffix(".bin")
    return weights.stat().st_size if weights != artifact and weights.is_file() else 0


def _specs(ports: Sequence[Any], kind: str) -> tuple[TensorSpec, ...]:
    return tuple(_spec(port, kind) for port in ports)


def _spec(port: Any, kind: str) -> TensorSpec:
    name = _name(port)
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise LoadFailed(f"The {kind} {name} has no fixed number of axes; export the model with one.")
    word = port.get_element_type().get_type_name()
    # Strings are known to OpenVINO, but releasing a compiled model that has them ends the process (2026.4).
    if word not in _DTYPES:
        raise LoadFailed(f"The {kind} {name} is of type {word}, which the engine openvino does not run.")
    sizes = tuple(-1 if size.is_dynamic else size.get_length() for size in shape)
    return TensorSpec(name, _DTYPES[word], sizes)


def _name(port: Any) -> str:
    names = port.get_names()
    return min(names) if names else str(port.get_node().get_friendly_name())


def _refuse_wide(arrays: Sequence[np.ndarray[Any, Any]], signature: Signature) -> None:
    """Raises RunFailed for a whole number beyond 32 bits, of which the plugins would keep the lower half."""
    for spec, array in zip(signature.inputs, arrays, strict=True):
        if spec.dtype in _WIDE and array.size and (array.max() > _INT32.max or array.min() < _INT32.min):
            raise RunFailed(
                f"The input {spec.name} holds numbers beyond 32 bits, and openvino computes in 32 bits."
            )


def _request(model: Any, requests: SimpleQueue[Any]) -> Any:
    try:
        return requests.get_nowait()
    except Empty:
        return model.create_infer_request()


def _to_runtime(array: np.ndarray[Any, Any]) -> Any:
    """On the array's own memory, which may be read-only: the constructor without shape and type refuses that."""
    library = import_module("openvino")
    if array.dtype == _BF16:
        return library.Tensor(array.view(np.uint16), array.shape, library.Type.bf16)
    return library.Tensor(array, array.shape, library.Type(array.dtype))


def _from_runtime(tensor: Any, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """A copy: the request writes its next answer to the same place."""
    if spec.dtype == "BF16":
        bits: np.ndarray[Any, Any] = np.array(tensor.data).view(np.uint16)
        return bits.view(_BF16)
    return np.array(tensor.data)


def _sentence(error: Exception, artifact: Path | None = None) -> str:
    return sentence(error, _NOISE, artifact)
