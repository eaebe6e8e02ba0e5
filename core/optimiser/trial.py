"""One trial: its job, the confined process that runs it, and what becomes of both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from core.engines.cores import cores_available
from core.errors import TrialFailed
from core.optimiser.candidate import Candidate, Figures, figures_from_json
from core.tasks.vectors import Pooled
from core.validation.room import confined, drain, send

_MAX_OUTPUT_BYTES: Final = 1 << 18
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """What one trial may take: seconds, address space, bytes of one file that it writes."""

    wall_s: float = 120.0
    memory_bytes: int = 32 * _GIB
    file_bytes: int = 4 * _GIB


DEFAULT_LIMITS: Final = TrialLimits()


@dataclass(frozen=True, slots=True)
class TrialJob:
    """What to try, on which file, with which inputs.

    `feeds` are files of judging inputs; `outputs` the folder of the reference's answers, which are kept there
    (`keep`) or compared with (`compare`). `labels` hold the true class of each item of each feed; `pooled` says
    how answers are made of the outputs, where they are vectors.
    """

    candidate: Candidate
    artifact: Path
    feeds: Sequence[Path]
    outputs: Path
    keep: bool = False
    compare: bool = False
    classes: bool = False
    labels: Sequence[Sequence[int | None]] = field(default_factory=tuple)
    pooled: Pooled | None = None
    seconds: float = 2.0
    stop_ms: float | None = None
    judge_s: float = 60.0
    """For so long at most the judging inputs are answered, or their answers compared."""
    judge_bytes: int = _GIB
    """So many bytes of the reference's answers are kept at most."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What the engine is told besides, as by the model's manifest."""

    def to_json(self, limits: TrialLimits) -> dict[str, Any]:
        """What the process reads."""
        return {
            "candidate": self.candidate.to_json(),
            "artifact": str(self.artifact.absolute()),
            "feeds": [str(path.absolute()) for path in self.feeds],
            "outputs": str(self.outputs.absolute()),
            "keep": self.keep,
            "compare": self.compare,
            "classes": self.classes,
            "labels": [list(part) for part in self.labels],
            "pooled": asdict(self.pooled) if self.pooled else None,
            "seconds": self.seconds,
            "stop_ms": self.stop_ms,
            "judge_s": self.judge_s,
            "judge_bytes": self.judge_bytes,
            "told": dict(self.told),
            "cores": cores_available(),
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "cpu_s": max(1, round(limits.wall_s * cores_available())),
            "parent": os.getpid(),
        }


class StoppedAsSlower(Exception):
    """The trial ended early: it was far slower than the best so far."""

    def __init__(self, p50_ms: float) -> None:
        super().__init__(p50_ms)
        self.p50_ms = p50_ms


async def run_trial(
    job: TrialJob, limits: TrialLimits = DEFAULT_LIMITS, on_phase: Callable[[str], None] = lambda phase: None
) -> Figures:
    """Measure in a confined process; cancelling ends it. Raises TrialFailed or StoppedAsSlower."""
    errors = bytearray()
    text = json.dumps(job.to_json(limits)).encode()
    async with confined("core.optimiser.trial_child", "pulvinar-trial-") as process:
        try:
            async with asyncio.timeout(limits.wall_s):
                _, said, _ = await asyncio.gather(
                    send(process, text), _follow(process, on_phase), drain(process, errors)
                )
                returncode = await process.wait()
        except TimeoutError:
            raise TrialFailed(f"It took longer than {limits.wall_s:.0f} s and was ended.") from None
    return _result(said, returncode, bytes(errors))


async def _follow(process: Process, on_phase: Callable[[str], None]) -> dict[str, Any]:
    """The last thing it says; phases are passed on."""
    assert process.stdout is not None
    said: dict[str, Any] = {}
    size_bytes = 0
    try:
        while line := await process.stdout.readline():
            size_bytes += len(line)
            if size_bytes > _MAX_OUTPUT_BYTES:
                raise ValueError
            message = json.loads(line)
            if "phase" in message:
                on_phase(str(message["phase"])[:32])
            else:
                said = dict(message)
    except (ValueError, TypeError):
        raise TrialFailed("It answered with something that is no result.") from None
    return said


def _result(said: dict[str, Any], returncode: int, errors: bytes) -> Figures:
    if "failed" in said:
        raise TrialFailed(str(said["failed"])[:600])
    if "slower" in said:
        raise StoppedAsSlower(float(said["slower"]))
    if "done" not in said:
        raise TrialFailed(_cause(returncode, errors))
    try:
        return figures_from_json(said["done"])
    except (TypeError, KeyError, ValueError):
        raise TrialFailed("It answered with something that is no result.") from None


def _cause(returncode: int, errors: bytes) -> str:
    if b"bad_alloc" in errors or b"MemoryError" in errors:
        return "It ran out of memory."
    if returncode == -signal.SIGKILL:
        return "It was killed, most likely because the machine ran out of memory."
    if returncode == -signal.SIGXCPU:
        return "It used up its CPU time and was ended."
    if returncode < 0:
        return f"It crashed with signal {-returncode}."
    return f"It ended early with status {returncode}."
