"""The contract of an engine: load, run, memory, close.

An engine is made cheaply and loads later. Every call may block and is made from a worker thread, never from
the event loop; `run` releases the interpreter lock while it computes and may be called from several threads
at once when `concurrent` is true.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from core.signature import Signature

Tensors = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to load: `device` as in `cpu`, `cuda:0`; `threads` inside one run, 0 for all cores of the machine.

    `widths` are the numbers of threads that `run_wide` will be called with, the largest first, in place of
    `threads`. An engine that can hold one model for several of them shares its weights; others take the first.
    """

    device: str = "cpu"
    threads: int = 0
    widths: Sequence[int] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What `system/engines` lists: whether the engine can be used here, and if not, why and what to install.

    `precisions` are those it computes in on this machine: `fp32`, `bf16`, `fp16`, `int8`.
    """

    name: str
    available: bool
    version: str | None = None
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    reason: str | None = None
    hint: str | None = None


class Engine(ABC):
    """One loaded model. Not usable before `load` or after `close`; `close` may be called twice."""

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    concurrent: ClassVar[bool] = False
    always_hosted: ClassVar[bool] = False
    """Whether its models run in a host process whatever is asked: a library that is trusted less."""
    bounded: bool = False
    """Whether the time of a run follows from the shapes of its inputs alone, whatever their values; known once
    loaded. Only then may a run that was measured to be short be made where it must not be long."""

    @classmethod
    @abstractmethod
    def info(cls) -> EngineInfo:
        """Say whether this engine works on this machine, with its version and devices."""

    @classmethod
    def choices(cls, device: str) -> Mapping[str, Sequence[str]]:
        """Which of `extra` a deployment may choose on this device: `precision`, `hint`, and the words of each.

        Nothing, unless an engine says so. Raises EngineUnavailable where it has no such device.
        """
        return {}

    @abstractmethod
    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        """Load the model file `artifact`. Raises LoadFailed with a sentence that says what to mend."""

    @abstractmethod
    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch, the first axis being the batch, and return every output. Raises RunFailed."""

    def run_wide(self, inputs: Tensors, threads: int) -> dict[str, np.ndarray[Any, Any]]:
        """As `run`, with about so many threads. Optional: an engine of one width has nothing to choose.

        Runs side by side share their threads but the calling ones: two runs of 3 are 2 callers and 2 helpers.
        """
        return self.run(inputs)

    def shrink(self, inputs: Tensors) -> None:  # noqa: B027
        """Give back the memory that loading and larger batches have left and a run of `inputs` does not need.

        Called once the model is warm, before it serves. Nothing to do, unless an engine says so.
        """

    @abstractmethod
    def memory(self) -> int:
        """Bytes that closing this engine would give back, as well as they are known."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the model and its memory."""
