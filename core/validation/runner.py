from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from core.settings import ValidationSettings
from core.validation.report import Report, Row, ValidationResult, cause_of_death
from core.validation.room import confined, drain, kill, send

ON_GPU: Final = ("tensorrt",)
"""Formats that run on a GPU alone."""
_MAX_OUTPUT_BYTES: Final = 1 << 20

__all__ = ["ValidationResult", "validate"]


async def validate(
    artifact_root: Path,
    manifest: Mapping[str, Any],
    limits: ValidationSettings,
    on_check: Callable[[Row], None] | None = None,
    *,
    trust_plans: bool = False,
) -> ValidationResult:
    """Try a model in a process of its own and report on it.

    The process has no environment, capped memory, CPU time and files, and `limits.wall_s` to live; whatever
    becomes of it becomes a row of the report. Cancelling ends it. `on_check` sees each row as it comes. A TensorRT
    plan is loaded only with `trust_plans`.
    """
    report = Report(on_check)
    started = time.perf_counter()
    async with confined("core.validation.child", "pulvinar-validation-") as process:
        cause = await _watch(process, _job(artifact_root, manifest, limits, trust_plans), report, limits)
    if cause is not None:
        seen_ms = sum(row["ms"] for row in report.rows)
        report.add(report.running, False, cause, round((time.perf_counter() - started) * 1000 - seen_ms, 1))
    return report.result()


def _job(root: Path, manifest: Mapping[str, Any], limits: ValidationSettings, trust_plans: bool) -> bytes:
    job = {
        "root": str(root.absolute()),
        "manifest": manifest,
        "trust_plans": trust_plans,
        "gpu": manifest.get("format") in ON_GPU,
        "memory_bytes": limits.memory_bytes,
        "cpu_s": limits.cpu_s,
        "parent": os.getpid(),
    }
    return json.dumps(job).encode()


async def _watch(process: Process, job: bytes, report: Report, limits: ValidationSettings) -> str | None:
    """Feed and follow the process; None when it came to its end, otherwise why it did not."""
    errors = bytearray()
    try:
        async with asyncio.timeout(limits.wall_s):
            await asyncio.gather(send(process, job), _follow(process, report), drain(process, errors))
            returncode = await process.wait()
    except TimeoutError:
        return (
            f"The model took longer than {limits.wall_s:g} s (validation.wall_s) and was ended; look for loops "
            "that do not end, or ask for a higher limit."
        )
    if report.broken:
        return "The validator answered with something that is not a report; the model may have taken it over."
    return (
        None if report.end is not None and returncode == 0 else cause_of_death(returncode, bytes(errors), limits)
    )


async def _follow(process: Process, report: Report) -> None:
    """Feed the report line by line; a flood or a line that is none ends the process."""
    assert process.stdout is not None
    size_bytes = 0
    with contextlib.suppress(ValueError):  # readline's word for a line over the limit
        while line := await process.stdout.readline():
            size_bytes += len(line)
            if size_bytes > _MAX_OUTPUT_BYTES or not report.feed(line):
                break
        else:
            return
    report.broken = True
    kill(process)
