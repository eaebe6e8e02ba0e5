"""ONNX models, run by ONNX Runtime."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

import numpy as np
import structlog

from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.engines.cores import cores_available
from core.engines.extras import refuse_unknown
from core.engines.heap import Growth, trim_heap
from core.engines.onnx_binding import run_bound
from core.engines.onnx_providers import built_in, chosen_providers, devices, provider_name
from core.engines.onnx_widths import open_sharing
from core.engines.sentences import sentence
from core.errors import EngineUnavailable, LoadFailed, RunFailed
from core.signature import Signature, TensorSpec

log = structlog.get_logger(__name__)

_HINT = "pip install 'pulvinar[cpu]', or 'pulvinar[gpu]' on a machine with an NVIDIA driver"
_LOG_ERRORS = 3
# onnxruntime/core/framework/data_types.cc names them.
_DTYPES: Final[dict[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
_SMALL_FILE_BYTES: Final = 4 << 20
_UNBOUNDED: Final = (
    b"Loop",
    b"Scan",
    b"Range",
    b"ConstantOfShape",
    b"Expand",
    b"Tile",
    b"OneHot",
    b"Resize",
    b"Pad",
)
_NOISE: Final = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |\(?(?:/[\w.+@-]+)+\.(?:cc|cpp|h|hpp|cu|cuh)(?::\d+)?\)?\s*"
)
_OPTIONS: Final = ("allow_spinning", "provider", "precision", "cache_dir")


class OnnxEngine(Engine):
    """One ONNX Runtime session, or one for each width on the same weights.

    `extra` takes `allow_spinning` (default false: idle threads sleep), `provider` (`cpu` or `openvino` on the CPU,
    `cuda` or `tensorrt` on a GPU), and for the providers that choose one, `precision` and `cache_dir`.
    `BYTES` tensors are object arrays: str or UTF-8 bytes go in, str comes out.
    """

    name: ClassVar[str] = "onnx"
    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    concurrent: ClassVar[bool] = True

    def __init__(self) -> None:
        self._sessions: list[Any] = []
        """By the number of threads asked for; 0 is the widest."""
        self._outputs: list[str] = []
        self._plain = True
        self._bound = False
        self._on_cpu = True
        self._memory_bytes = 0

    @classmethod
    def info(cls) -> EngineInfo:
        """Available when the library imports; `cuda:0` is a device when its CUDA provider is built in."""
        try:
            library = _library()
        except EngineUnavailable as error:
            return EngineInfo(cls.name, available=False, reason=error.message, hint=_HINT)
        return EngineInfo(
            cls.name,
            available=True,
            version=library.__version__,
            devices=devices(library),
            precisions=("fp32", "fp16", "int8"),
        )

    @classmethod
    def choices(cls, device: str) -> Mapping[str, Sequence[str]]:
        """It computes in what the model is written in, by the providers that it takes by itself."""
        return {"precision": ("fp32",)}

    @classmethod
    def providers(cls) -> tuple[str, ...]:
        """What `extra` may name as `provider`, of what the library was built with; empty without the library."""
        try:
            return built_in(_library())
        except EngineUnavailable:
            return ()

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Open the model; external data is read from beside it. Raises LoadFailed or EngineUnavailable."""
        library = _library()
        refuse_unknown(options.extra, _OPTIONS)
        threads = max(options.widths, default=options.threads) or cores_available()
        providers = chosen_providers(library, options, threads)
        self._growth = Growth()
        try:
            file_bytes = artifact.stat().st_size
            sessions = _open(library, artifact, options, providers)
        except Exception as error:
            raise LoadFailed(f"ONNX Runtime cannot load the model: {_sentence(error, artifact)}") from error
        session = sessions[0]
        if session.get_providers()[0] != provider_name(providers):
            raise EngineUnavailable(_could_not_start(options))
        signature = Signature(_specs(session.get_inputs(), "input"), _specs(session.get_outputs(), "output"))
        self._sessions, self._outputs = sessions, [spec.name for spec in signature.outputs]
        self._plain = _is_plain(signature)
        self._on_cpu = providers == ["CPUExecutionProvider"]
        self._bound = not self._plain or (options.device != "cpu" and not _has_text(signature))
        self.bounded = self._on_cpu and _is_bounded(artifact, file_bytes)
        self._file_bytes, self._memory_bytes = file_bytes, self._growth.bytes(file_bytes)
        return signature

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch; nothing is cast. Safe from several threads at once. Raises RunFailed."""
        return self.run_wide(inputs, 0)

    def run_wide(self, inputs: Tensors, threads: int) -> dict[str, np.ndarray[Any, Any]]:
        """As `run`, in the narrowest session that has so many threads, or the widest."""
        sessions = self._sessions
        if not sessions:
            raise RunFailed("The model is not loaded.")
        session = sessions[threads] if threads < len(sessions) else sessions[0]
        try:
            feed = {name: _to_runtime(value) for name, value in inputs.items()}
            values = run_bound(session, self._outputs, feed) if self._bound else session.run(self._outputs, feed)
        except Exception as error:
            raise RunFailed(f"ONNX Runtime failed on this batch: {_sentence(error)}") from error
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}

    def shrink(self, inputs: Tensors) -> None:
        """See Engine. The arenas of all widths are cut, and what the optimiser has freed goes to the system."""
        options = _library().RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        if self._on_cpu and self._plain:
            for session in {id(session): session for session in self._sessions}.values():
                session.run(self._outputs, dict(inputs), options)
        trim_heap()
        self._memory_bytes = self._growth.bytes(self._file_bytes)

    def memory(self) -> int:
        """The larger of the file's size and of the process's growth while it loaded and warmed; 0 once closed."""
        return self._memory_bytes

    def close(self) -> None:
        """Drop the sessions; runs that are under way keep theirs until they end."""
        self._sessions = []
        self._memory_bytes = 0
        trim_heap()


def _library() -> ModuleType:
    # Before the import: switching events off afterwards leaves a database of them in the user's cache folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        library = import_module("onnxruntime")
    except Exception as error:
        raise EngineUnavailable(f"ONNX Runtime is not installed: {_HINT}.") from error
    library.disable_telemetry_events()
    library.set_default_logger_severity(_LOG_ERRORS)
    return library


def _open(library: ModuleType, artifact: Path, options: EngineOptions, providers: list[Any]) -> list[Any]:
    """Sessions by the number of threads wanted: 0 is the widest, any other number the narrowest that has it."""
    wide, *narrower = options.widths or (options.threads or cores_available(),)
    by_width = {}
    if narrower and providers == ["CPUExecutionProvider"]:
        try:
            by_width = open_sharing(
                library, artifact, options.widths, lambda n: _session_options(library, options, n)
            )
        except Exception as error:  # one width is as right; and what is wrong with the file will be said below
            log.info("onnx.one_width", reason=_sentence(error, artifact))
    if not by_width:
        by_width = {
            wide: library.InferenceSession(str(artifact), _session_options(library, options, wide), providers)
        }
    enough = [min((width for width in by_width if width >= n), default=max(by_width)) for n in range(wide + 1)]
    return [by_width[wide], *(by_width[width] for width in enough[1:])]


def _session_options(library: ModuleType, options: EngineOptions, threads: int) -> Any:
    chosen = library.SessionOptions()
    # A number, not ORT's own 0: that one would pin each thread to a core, and sessions would share the same few.
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    chosen.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.log_severity_level = _LOG_ERRORS
    spinning = "1" if options.extra.get("allow_spinning") else "0"
    chosen.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    # Content decides, not the file's name: an ORT-format flatbuffer is another format, and not accepted.
    chosen.add_session_config_entry("session.load_model_format", "ONNX")
    return chosen


def _specs(nodes: list[Any], kind: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(node.name, _dtype(node, kind), _shape(node.shape)) for node in nodes)


def _dtype(node: Any, kind: str) -> str:
    try:
        return _DTYPES[node.type]
    except KeyError:
        raise LoadFailed(
            f"The {kind} {node.name} is of type {node.type}, which is not supported: only dense tensors are "
            "(export classifiers with zipmap turned off)."
        ) from None


def _shape(shape: list[int | str | None] | None) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) and size >= 0 else -1 for size in shape or ())


def _is_plain(signature: Signature) -> bool:
    """Whether NumPy can carry every tensor; the other way, through the runtime's values, knows no strings."""
    plain = all(spec.dtype != "BF16" for spec in (*signature.inputs, *signature.outputs))
    if not plain and any(spec.dtype == "BYTES" for spec in signature.inputs):
        raise LoadFailed("ONNX Runtime cannot be called with strings and BF16 at once: export without one.")
    return plain


def _has_text(signature: Signature) -> bool:
    return any(spec.dtype == "BYTES" for spec in (*signature.inputs, *signature.outputs))


def _could_not_start(options: EngineOptions) -> str:
    if options.device == "cpu":
        return "ONNX Runtime could not start its OpenVINO."
    return f"ONNX Runtime could not start on {options.device}: check the NVIDIA driver."


def _is_bounded(artifact: Path, file_bytes: int) -> bool:
    """Whether no node's work depends on values: none repeats, or makes tensors of sizes that others hold.

    The names are looked for as protobuf writes NodeProto.op_type (onnx.proto3, field 4), in small files alone.
    They may also stand in a file for other reasons; nothing but speed is lost then.
    """
    if file_bytes > _SMALL_FILE_BYTES:
        return False
    content = artifact.read_bytes()
    return not any(b"\x22" + bytes([len(name)]) + name in content for name in _UNBOUNDED)


def _to_runtime(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # ONNX strings are text; the runtime would take b"x" for the text "b'x'".
    if value.dtype.kind != "O":
        return value
    texts = [v.decode("utf-8") if isinstance(v, bytes) else v for v in value.flat]
    result = np.empty(len(texts), dtype=object)
    result[:] = texts
    return result.reshape(value.shape)


def _sentence(error: Exception, artifact: Path | None = None) -> str:
    return sentence(error, _NOISE, artifact)
