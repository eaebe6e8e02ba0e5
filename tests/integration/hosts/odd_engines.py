"""Engines that behave badly in ways unknown to the fake engine; only hosts started by tests have them."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

import numpy as np

from core.engines import registry
from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.signature import Signature
from tests.integration.hosts.hosting import POISON, signature


class NoisyEngine(Engine):
    """Writes a megabyte without a line's end to both outputs, garbage and all, at every call."""

    name = "noisy"
    formats = ()

    @classmethod
    def info(cls) -> EngineInfo:
        """Always available."""
        return EngineInfo(cls.name, available=True)

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Make noise."""
        _make_noise()
        return signature()

    def run(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """Make noise, and answer `x` times 2."""
        _make_noise()
        return {"y": inputs["x"] * 2}

    def memory(self) -> int:
        """Nothing worth mentioning."""
        return 0

    def close(self) -> None:
        """Nothing to close."""


class GreedyEngine(NoisyEngine):
    """Holds the interpreter lock for as long as it loads, as a library in C may."""

    name = "greedy"

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Hold the lock for a minute."""
        ctypes.PyDLL(None).sleep(60)
        return signature()


class BrokenEngine(NoisyEngine):
    """Has a bug."""

    name = "broken"

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Fail as no engine should."""
        raise RuntimeError(f"cannot make sense of {artifact}")


class ShapelessEngine(NoisyEngine):
    """Answers one item too few to a batch that holds 13, and `x` times 2 otherwise."""

    name = "shapeless"

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Nothing to load."""
        return signature()

    def run(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """Lose an item."""
        x = inputs["x"]
        return {"y": x[1:] * 2 if (x == POISON).any() else x * 2}


class LeakyEngine(ShapelessEngine):
    """Keeps another 32 MiB at every call."""

    name = "leaky"

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []

    def run(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """Keep, and answer `x` times 2."""
        self._kept.append(np.ones(32 << 20, np.uint8))
        return {"y": inputs["x"] * 2}


def _make_noise() -> None:
    noise = b'{"state": "ready"}\n\x00\xff\x1b[31m' + b"=" * (1 << 20)
    for fd in (1, 2):
        view = memoryview(noise)
        while view:
            view = view[os.write(fd, view) :]
    print("\nfrom Python, too", flush=True)
    time.sleep(0)


def main() -> None:
    """A host's program that knows these engines too."""
    names = ("noisy", "greedy", "broken", "shapeless", "leaky")
    ours = {name: f"{__name__}:{name.title()}Engine" for name in names}
    registry.ENGINES = {**registry.ENGINES, **ours}  # type: ignore[misc]
    from core.control.host_main import main

    main()
