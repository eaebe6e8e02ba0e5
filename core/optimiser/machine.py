"""What measurements on this machine depend on, so that a changed one makes them stale."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from core.engines.cores import cores_available

_LIBRARIES: Final = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")
_WORDS: Final[Mapping[str, str]] = {
    "cpu": "the processor",
    "cpu_flags": "what the processor can do",
    "cores": "the number of cores",
    "gpus": "the GPUs",
    "libraries": "the engines' versions",
}


@cache
def fingerprint() -> Mapping[str, Any]:
    """Processor, its flags (hashed), cores, GPUs and the engines' versions."""
    cpu, flags = _cpu()
    return {
        "cpu": cpu,
        "cpu_flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "cores": cores_available(),
        "gpus": _gpus(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
    }


def what_changed(then: Mapping[str, Any]) -> str | None:
    """What is not as it was when `then` was taken, as the end of a sentence; None where nothing is."""
    now = fingerprint()
    changed = [word for key, word in _WORDS.items() if then.get(key) != now[key]]
    return " and ".join(changed) or None


def _cpu() -> tuple[str, str]:
    """Model name and flags as Linux tells them; elsewhere the machine's name alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), ""
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    told = {key.strip(): value.strip() for key, value in facts.items()}
    return told.get("model name", platform.machine()), told.get("flags", told.get("Features", ""))


def _gpus() -> list[str]:
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            count = pynvml.nvmlDeviceGetCount()
            return [str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(count)]
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no driver, no GPU
        return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
