"""A model that can be called and is in no memory: what is known of it, and where its callers wait for its load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from core.errors import DeadlineExceeded, NotReady, PlatformError, QueueFull
from core.serving.request import InferenceRequest, InferenceResult
from core.signature import Signature


@dataclass(frozen=True, slots=True)
class IdleVersion:
    """A live version that is not loaded, as a Target to look at; calls go through the catalogue, which waits."""

    model: str
    version: int
    task: str
    modality: str
    signature: Signature

    def check_room(self) -> None:
        """See Target."""
        raise NotReady(f"The model {self.model!r} is not loaded.", retry_after_s=1)

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """See Target."""
        raise NotReady(f"The model {self.model!r} is not loaded.", retry_after_s=1)


@dataclass(frozen=True, slots=True)
class IdleModel:
    """The live versions of a model in no memory; at most `capacity` callers wait for it, `timeout_s` each."""

    versions: Sequence[IdleVersion]
    timeout_s: float
    capacity: int

    def has(self, version: int | None) -> bool:
        """Whether a call for this version, or for any, is a call for it."""
        return version is None or any(one.version == version for one in self.versions)

    def to_json(self) -> dict[str, Any]:
        """As workers are told."""
        versions = [
            {"version": v.version, "task": v.task, "modality": v.modality, "signature": v.signature.to_json()}
            for v in self.versions
        ]
        return {"versions": versions, "timeout_s": self.timeout_s, "capacity": self.capacity}

    @classmethod
    def from_json(cls, model: str, said: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        versions = tuple(
            IdleVersion(model, v["version"], v["task"], v["modality"], Signature.from_json(v["signature"]))
            for v in said["versions"]
        )
        return cls(versions, said["timeout_s"], said["capacity"])


class _Round:
    """One load that is waited for."""

    __slots__ = ("ended", "error", "waiting")

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.error: PlatformError | None = None
        self.waiting = 0


class WaitingRoom:
    """Callers of idle models. However many wait for one, `ask` is called by the first alone."""

    def __init__(self, ask: Callable[[str], None]) -> None:
        self._ask = ask
        self._rounds: dict[str, _Round] = {}

    async def wait(self, model: str, capacity: int, deadline: float) -> None:
        """Wait until the model is loaded; who leaves stops nobody else's waiting, nor the load.

        Raises QueueFull, DeadlineExceeded (`deadline` is of `time.monotonic()`), or what the load failed of.
        """
        round_ = self._rounds.get(model)
        if round_ is not None and round_.waiting >= capacity:
            raise QueueFull("As many callers wait for this model's load as may; try again.", retry_after_s=1)
        if round_ is None:
            round_ = self._rounds[model] = _Round()
        round_.waiting += 1
        if round_.waiting == 1:
            self._ask(model)
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await round_.ended.wait()
        except TimeoutError as error:
            raise DeadlineExceeded("The deadline passed while the model was being loaded.") from error
        finally:
            round_.waiting -= 1
        if round_.error is not None:
            raise type(round_.error)(round_.error.message, retry_after_s=round_.error.retry_after_s)

    def ask_again(self, model: str) -> None:
        """It was loaded and is idle again before its callers here could take hold of it."""
        round_ = self._rounds.get(model)
        if round_ is not None and round_.waiting:
            self._ask(model)
        else:
            self._rounds.pop(model, None)

    def end(self, model: str, error: PlatformError | None = None) -> None:
        """Let all go on that wait for a model, or give all of them the same error."""
        round_ = self._rounds.pop(model, None)
        if round_ is not None:
            round_.error = error
            round_.ended.set()
