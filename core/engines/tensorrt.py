"""ONNX models, built for the GPU they run on, and run by TensorRT.

The calls are those of NVIDIA's "TensorRT Python API", versions 10 and 11.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

import numpy as np

from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.engines.cuda import Cuda, CudaError
from core.engines.extras import choice, refuse_unknown, whole
from core.engines.inputs import ordered
from core.engines.sentences import sentence
from core.engines.tensorrt_plans import Recipe, is_plan, keep_plan, model_sha256, profile, read_plan
from core.errors import EngineUnavailable, LoadFailed, RunFailed
from core.signature import NUMPY_DTYPES, Signature, TensorSpec

_HINT: Final = "pip install 'pulvinar[tensorrt]' on a machine with an NVIDIA driver"
_OPTIONS: Final = ("precision", "max_batch", "cache_dir", "trust_plans")
_MAX_BATCH: Final = 32
_MOST_BATCH: Final = 4096
_NOISE: Final = re.compile(r"\[\w+\.(?:cpp|h)::\w+::\d+\]\s*")
_DTYPES: Final = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "HALF": "FP16",
    "FLOAT": "FP32",
    "BF16": "BF16",
}


class TensorrtEngine(Engine):
    """One execution context; runs from several threads take turns, as the GPU would make them.

    `extra` takes `precision` (`fp32`, `fp16`), `max_batch` (the largest batch that the plan is built for, 32),
    `cache_dir` (where plans are kept; unset builds at every load) and `trust_plans` (load a plan that somebody
    else has built: it holds code).
    """

    name: ClassVar[str] = "tensorrt"
    formats: ClassVar[tuple[str, ...]] = ("onnx", "tensorrt")
    concurrent: ClassVar[bool] = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cuda: Cuda | None = None
        self._plan: Any = None
        self._context: Any = None
        self._signature = Signature((), ())
        self._buffers: dict[str, tuple[int, int]] = {}
        """On the GPU, by tensor: address and bytes."""
        self._memory_bytes = 0

    @classmethod
    def info(cls) -> EngineInfo:
        """Available when the library imports and the driver finds a GPU."""
        try:
            library = _library()
            with_driver = Cuda(0)
            with_driver.close()
        except EngineUnavailable as error:
            return EngineInfo(cls.name, available=False, reason=error.message, hint=_HINT)
        except CudaError as error:
            return EngineInfo(cls.name, available=False, reason=f"No GPU: {error}.", hint=_HINT)
        return EngineInfo(
            cls.name,
            available=True,
            version=library.__version__,
            devices=("cuda:0",),
            precisions=("fp32", "fp16") if _has_fp16_flag(library) else ("fp32",),
        )

    @classmethod
    def choices(cls, device: str) -> Mapping[str, Sequence[str]]:
        """What this version can be told to compute in."""
        return {"precision": ("fp32", "fp16") if _has_fp16_flag(_library()) else ("fp32",)}

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Find the plan in the cache or build it, for minutes. Raises LoadFailed or EngineUnavailable."""
        refuse_unknown(options.extra, _OPTIONS)
        library, cuda = _library(), _open(options.device)
        try:
            content = _plan(library, cuda, artifact, options)
            plan = library.Runtime(_logger(library)).deserialize_cuda_engine(content)
            if plan is None:
                raise LoadFailed("TensorRT cannot read the plan: it was built for another GPU or version.")
            self._signature = _signature(library, plan)
            self._context = plan.create_execution_context()
            if self._context is None:
                raise LoadFailed("The GPU has too little free memory for the model.")
        except LoadFailed:
            cuda.close()
            raise
        except Exception as error:
            cuda.close()
            raise LoadFailed(f"TensorRT cannot load the model: {sentence(error, _NOISE, artifact)}") from error
        self._cuda, self._plan = cuda, plan
        self._memory_bytes = len(content)
        return self._signature

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch; nothing is cast. Raises RunFailed."""
        with self._lock:
            cuda = self._cuda
            if cuda is None:
                raise RunFailed("The model is not loaded.")
            arrays = [np.asarray(array, order="C") for array in ordered(inputs, self._signature)]
            if (nothing := answer_to_nothing(self._signature, arrays)) is not None:
                return nothing
            try:
                cuda.enter()
                return self._run(cuda, arrays)
            except RunFailed:
                raise
            except Exception as error:
                raise RunFailed(f"TensorRT failed on this batch: {sentence(error, _NOISE)}") from error

    def memory(self) -> int:
        """The plan's size and that of the buffers on the GPU; 0 once closed."""
        return self._memory_bytes + sum(size for _, size in self._buffers.values())

    def close(self) -> None:
        """Free the GPU's memory, after the run that is under way."""
        with self._lock:
            cuda, self._cuda = self._cuda, None
            if cuda is None:
                return
            cuda.enter()
            self._context = self._plan = None
            for address, _ in self._buffers.values():
                cuda.free(address)
            self._buffers, self._memory_bytes = {}, 0
            cuda.close()

    def _run(self, cuda: Cuda, arrays: list[np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        for spec, array in zip(self._signature.inputs, arrays, strict=True):
            if not self._context.set_input_shape(spec.name, array.shape):
                raise RunFailed(f"The input {spec.name} is beyond what the plan is built for; lower max_batch.")
            address = self._buffer(cuda, spec.name, array.nbytes)
            cuda.send(array, address)
            self._context.set_tensor_address(spec.name, address)
        answer = {spec.name: self._answer(cuda, spec) for spec in self._signature.outputs}
        if not self._context.execute_async_v3(cuda.stream):
            raise RunFailed("TensorRT could not run this batch.")
        for name, array in answer.items():
            cuda.fetch(self._buffers[name][0], array)
        cuda.wait()
        return answer

    def _answer(self, cuda: Cuda, spec: TensorSpec) -> np.ndarray[Any, Any]:
        shape = tuple(self._context.get_tensor_shape(spec.name))
        if -1 in shape:
            raise RunFailed(f"The shape of the output {spec.name} depends on values, which tensorrt cannot run.")
        array = np.empty(shape, NUMPY_DTYPES[spec.dtype])
        self._context.set_tensor_address(spec.name, self._buffer(cuda, spec.name, array.nbytes))
        return array

    def _buffer(self, cuda: Cuda, name: str, size_bytes: int) -> int:
        address, held = self._buffers.get(name, (0, -1))
        if held < size_bytes:
            if held >= 0:
                del self._buffers[name]
                cuda.free(address)
            address = cuda.allocate(size_bytes)
            self._buffers[name] = (address, size_bytes)
        return address


def _library() -> ModuleType:
    try:
        return import_module("tensorrt")
    except Exception as error:
        raise EngineUnavailable(f"TensorRT is not installed: {_HINT}.") from error


def _logger(library: ModuleType) -> Any:
    return library.Logger(library.Logger.ERROR)


def _open(device: str) -> Cuda:
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise EngineUnavailable(f"The engine tensorrt has no device {device!r}: it runs on cuda:N.")
    try:
        return Cuda(int(index or 0))
    except CudaError as error:
        raise EngineUnavailable(f"The device {device} cannot be used: {error}.") from error


def _plan(library: ModuleType, cuda: Cuda, artifact: Path, options: EngineOptions) -> bytes:
    if is_plan(artifact):
        refuse_plan(trusted=options.extra.get("trust_plans") is True)
        return artifact.read_bytes()
    precision = choice(options.extra, "precision", ("fp32", "fp16"))
    max_batch = whole(options.extra, "max_batch", _MAX_BATCH, _MOST_BATCH)
    folder = options.extra.get("cache_dir")
    cache = Path(str(folder)) if folder else None
    recipe = Recipe(cuda.gpu(), library.__version__, model_sha256(artifact), precision, max_batch)
    found = read_plan(cache, recipe)
    if found is None:
        found = _build(library, artifact, precision, max_batch)
        keep_plan(cache, recipe, found)
    return found


def refuse_plan(*, trusted: bool) -> None:
    """Raises LoadFailed for a plan from outside, unless the administrator trusts such."""
    if not trusted:
        raise LoadFailed(
            "The file is a TensorRT plan, which holds code for one GPU: upload the ONNX file it was built from, "
            "or have the administrator set engines.trust_plans."
        )


def answer_to_nothing(
    signature: Signature, arrays: Sequence[np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]] | None:
    """The outputs of a batch of none, which plans do not run; None for any other batch."""
    if not arrays or not all(array.ndim and len(array) == 0 for array in arrays):
        return None
    shapes = {spec.name: (0, *(max(size, 0) for size in spec.shape[1:])) for spec in signature.outputs}
    return {spec.name: np.empty(shapes[spec.name], NUMPY_DTYPES[spec.dtype]) for spec in signature.outputs}


def _build(library: ModuleType, artifact: Path, precision: str, max_batch: int) -> bytes:
    logger = _logger(library)
    builder = library.Builder(logger)
    network = builder.create_network(0)
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(str(artifact)):
        raise RuntimeError(parser.get_error(0).desc() if parser.num_errors else "the file is not understood")
    config = builder.create_builder_config()
    _set_precision(library, config, precision)
    shapes = builder.create_optimization_profile()
    for place in range(network.num_inputs):
        tensor = network.get_input(place)
        if (wanted := profile(_spec(tensor.name, tensor.dtype, tensor.shape), max_batch)) is not None:
            shapes.set_shape(tensor.name, *wanted)
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("no plan could be built for this GPU")
    return bytes(plan)


def _has_fp16_flag(library: ModuleType) -> bool:
    return hasattr(library.BuilderFlag, "FP16")


def _set_precision(library: ModuleType, config: Any, precision: str) -> None:
    if precision == "fp32":
        return
    if not _has_fp16_flag(library):  # from TensorRT 11 on, a network computes in the types it is written in
        raise LoadFailed("This TensorRT takes a model's precision from the model: convert it to FP16 first.")
    config.set_flag(library.BuilderFlag.FP16)


def _signature(library: ModuleType, plan: Any) -> Signature:
    names = [plan.get_tensor_name(place) for place in range(plan.num_io_tensors)]
    inputs = [name for name in names if plan.get_tensor_mode(name) == library.TensorIOMode.INPUT]
    specs = {name: _spec(name, plan.get_tensor_dtype(name), plan.get_tensor_shape(name)) for name in names}
    outputs = [name for name in names if name not in inputs]
    return Signature(tuple(specs[name] for name in inputs), tuple(specs[name] for name in outputs))


def _spec(name: str, dtype: Any, shape: Any) -> TensorSpec:
    if dtype.name not in _DTYPES:
        raise LoadFailed(f"The tensor {name} is of type {dtype.name}, which the engine tensorrt does not run.")
    return TensorSpec(name, _DTYPES[dtype.name], tuple(int(size) for size in shape))
