"""TorchScript and exported programs, run by PyTorch. Nothing of a model is ever unpickled by Python.

What a model could do before it is loaded is looked at in `torch_script` and `torch_export`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

import numpy as np
import psutil

from core.engines import torch_export, torch_script
from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.engines.cores import cores_available
from core.engines.extras import choice, refuse_unknown
from core.engines.heap import trim_heap
from core.engines.inputs import ordered
from core.engines.sentences import sentence
from core.engines.torch_archive import kind_of
from core.engines.torch_tensors import to_array, to_tensor
from core.errors import EngineUnavailable, LoadFailed, PlatformError, RunFailed
from core.signature import Signature

_HINT: Final = "pip install 'pulvinar[torch]'"
_DRIVER: Final = Path("/proc/driver/nvidia/version")
_PRECISIONS: Final = ("fp32", "bf16")
# What the TorchScript interpreter says before it comes to the point.
_NOISE: Final = re.compile(
    r"(?s)The following operation failed in the TorchScript.*?\n(?=\w*(?:Error|Exception): )"
)

Call = Callable[[Sequence[Any]], Sequence[Any]]


class TorchEngine(Engine):
    """One TorchScript module or one exported program.

    `extra` takes `precision` (`fp32`, or `bf16` for autocast), and for TorchScript `inputs` and `outputs`, lists
    of `{name, dtype, shape}`: the file does not say them.
    """

    name: ClassVar[str] = "torch"
    formats: ClassVar[tuple[str, ...]] = ("torchscript", "pt2")
    concurrent: ClassVar[bool] = True
    always_hosted: ClassVar[bool] = True

    def __init__(self) -> None:
        self._call: Call | None = None
        self._signature = Signature((), ())
        self._threads = 1
        self._precision = "fp32"
        self._device = "cpu"
        self._memory_bytes = 0

    @classmethod
    def info(cls) -> EngineInfo:
        """Available when it is installed; not imported for that, which takes seconds and 200 MB."""
        try:
            found = version("torch")
        except PackageNotFoundError:
            return EngineInfo(cls.name, available=False, reason="PyTorch is not installed.", hint=_HINT)
        cuda = ("cuda:0",) if not found.endswith("+cpu") and _DRIVER.exists() else ()
        return EngineInfo(cls.name, available=True, version=found, devices=("cpu", *cuda), precisions=_PRECISIONS)

    @classmethod
    def choices(cls, device: str) -> Mapping[str, Sequence[str]]:
        """Both precisions, on every device."""
        return {"precision": _PRECISIONS}

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Look at the file, then open it. Raises LoadFailed or EngineUnavailable."""
        refuse_unknown(options.extra, ("precision", "inputs", "outputs"))
        precision = choice(options.extra, "precision", _PRECISIONS)
        library = _library()
        device = _device(library, options.device)
        before_bytes = _held_bytes(library, device)
        try:
            opened = _OPENERS[kind_of(artifact)](library, artifact, device, options.extra)
            self._signature, call = opened
            self._call = call if device == "cpu" else _on_gpu(library, call, device)
            file_bytes = artifact.stat().st_size
        except PlatformError:
            raise
        except Exception as error:
            raise LoadFailed(f"PyTorch cannot load the model: {sentence(error, _NOISE, artifact)}") from error
        self._threads = (options.widths[0] if options.widths else options.threads) or cores_available()
        self._precision, self._device = precision, device
        self._memory_bytes = max(file_bytes, _held_bytes(library, device) - before_bytes)
        return self._signature

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch; nothing is cast. Safe from several threads at once. Raises RunFailed."""
        return self.run_wide(inputs, 0)

    def run_wide(self, inputs: Tensors, threads: int) -> dict[str, np.ndarray[Any, Any]]:
        """As `run`, with so many threads. Runs side by side do not share theirs."""
        call = self._call
        if call is None:
            raise RunFailed("The model is not loaded.")
        library = import_module("torch")
        tensors = [to_tensor(library, array) for array in ordered(inputs, self._signature)]
        _use_threads(library, threads or self._threads)
        try:
            with library.inference_mode(), self._precisely(library):
                values = call(tensors)
        except PlatformError:
            raise
        except Exception as error:
            raise RunFailed(f"PyTorch failed on this batch: {sentence(error, _NOISE)}") from error
        if len(values) != len(self._signature.outputs):
            raise RunFailed(
                f"The model gave {len(values)} outputs, but {len(self._signature.outputs)} are listed for it."
            )
        return {
            spec.name: to_array(library, value, spec)
            for spec, value in zip(self._signature.outputs, values, strict=True)
        }

    def shrink(self, inputs: Tensors) -> None:
        """See Engine. What loading has freed goes to the system."""
        trim_heap()

    def memory(self) -> int:
        """The larger of the model's file size and what memory grew by while it loaded; 0 once closed."""
        return self._memory_bytes

    def close(self) -> None:
        """Drop the model; runs that are under way keep theirs until they end."""
        loaded, self._call = self._call is not None, None
        self._memory_bytes = 0
        if loaded and self._device != "cpu":  # PyTorch keeps what it has on a GPU for its next tensors
            import_module("torch").cuda.empty_cache()
        trim_heap()

    def _precisely(self, library: ModuleType) -> Any:
        if self._precision == "fp32":
            return nullcontext()
        return library.autocast(self._device.partition(":")[0], dtype=library.bfloat16)


def _open_script(library: ModuleType, artifact: Path, device: str, extra: Any) -> tuple[Signature, Call]:
    return torch_script.open_module(library, artifact, device, extra.get("inputs"), extra.get("outputs"))


def _open_export(library: ModuleType, artifact: Path, device: str, extra: Any) -> tuple[Signature, Call]:
    return torch_export.open_program(library, artifact, device)


_OPENERS: Final = {"torchscript": _open_script, "pt2": _open_export}


def _on_gpu(library: ModuleType, call: Call, device: str) -> Call:
    from core.engines.torch_cuda import GraphedCall

    return GraphedCall(library, call, device)


def _use_threads(library: ModuleType, threads: int) -> None:
    # OpenMP keeps the number for each thread that calls, so this is no race between runs.
    if library.get_num_threads() != threads:
        library.set_num_threads(threads)


def _device(library: ModuleType, device: str) -> str:
    kind, _, index = device.partition(":")
    if device == "cpu":
        return device
    if kind != "cuda" or not (index or "0").isdecimal():
        raise EngineUnavailable(f"The engine torch has no device {device!r}: it runs on cpu and cuda:N.")
    if int(index or 0) >= library.cuda.device_count():
        raise EngineUnavailable(
            f"PyTorch sees no device {device}: it needs its CUDA build, an NVIDIA driver and that many GPUs."
        )
    return f"cuda:{int(index or 0)}"


def _held_bytes(library: ModuleType, device: str) -> int:
    held: int = psutil.Process().memory_info().rss if device == "cpu" else library.cuda.memory_allocated(device)
    return held


def _library() -> ModuleType:
    try:
        return import_module("torch")
    except Exception as error:
        raise EngineUnavailable(f"PyTorch is not installed: {_HINT}.") from error
