"""One line for each request, and one more for each slow one.

A thread writes them a few times a second, so that a slow log never holds up a request. Lines wait for at most
`FLUSH_EVERY_S`. Those of a process that is killed in that time are lost; an orderly stop writes all. Where the
log cannot keep up, lines beyond `MAX_WAITING` are dropped, and their number is said.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from core.settings import Settings

FLUSH_EVERY_S: Final = 0.1
MAX_WAITING: Final = 50_000
_AS_JSON: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class Line(NamedTuple):
    """One request: its end in seconds since the epoch, how long it took, and what it was."""

    at: float
    ms: float
    status: int
    method: str
    path: str
    client: str
    request_id: str
    slow: Mapping[str, Any] | None = None
    """Of the line about a slow request, what it says beside: who answered, and where the time went."""
    trace_id: str = ""
    """Empty where requests are not traced."""


class AccessLog:
    """Belongs to one event loop: `add` each request there, and `close` at the end.

    `write` is called in a thread, with many lines at once.
    """

    def __init__(self, settings: Settings, write: Callable[[bytes], object] | None = None) -> None:
        self._write = write or _to_stderr
        self.configure(settings)
        self._lines: list[Line] = []
        self._dropped = 0
        self._flushing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def configure(self, settings: Settings) -> None:
        """Take over settings that may have changed."""
        self.settings = settings
        log = settings.log
        self.enabled = log.access and log.level in ("debug", "info")
        self.slow_ms = math.inf if log.slow_ms is None or log.level == "error" else log.slow_ms
        """From how many milliseconds on an inference request is slow."""
        self._render = (
            _json if log.format == "json" or (log.format == "auto" and settings.server.prod) else _readable
        )

    def add(self, line: Line) -> None:
        """Let a line wait to be written."""
        if len(self._lines) >= MAX_WAITING:
            self._dropped += 1
            return
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self._flush)

    def close(self) -> None:
        """Write what waits, now: the end of the process waits for no thread of ours. Blocks."""
        if self._timer is not None:
            self._timer.cancel()
        self._write_out(*self._taken())

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        if self._flushing is not None and not self._flushing.done():  # the log is slow: try again later
            self._timer = loop.call_later(FLUSH_EVERY_S, self._flush)
            return
        self._timer = None
        self._flushing = loop.run_in_executor(None, self._write_out, *self._taken())

    def _taken(self) -> tuple[list[Line], int]:
        taken = self._lines, self._dropped
        self._lines, self._dropped = [], 0
        return taken

    def _write_out(self, lines: list[Line], dropped: int) -> None:
        if dropped:
            lines.append(lines[-1]._replace(status=0, method="", path=f"{dropped} lines dropped", request_id=""))
        if lines:
            self._write(b"".join(map(self._render, lines)))


def _json(line: Line) -> bytes:
    fields = {
        "method": line.method,
        "path": line.path,
        "status": line.status,
        "ms": line.ms,
        "client": line.client,
        "event": "request" if line.slow is None else "request.slow",
        "request_id": line.request_id,
        **({"trace_id": line.trace_id} if line.trace_id else {}),
        "level": "info" if line.slow is None else "warning",
        **(line.slow or {}),
        "timestamp": datetime.fromtimestamp(line.at, UTC),
    }
    return orjson.dumps(fields, option=_AS_JSON)


def _readable(line: Line) -> bytes:
    time = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    path = line.path.encode("unicode_escape").decode()  # callers choose it, and terminals obey some of it
    kind = "[info] request" if line.slow is None else "[warning] request.slow"
    said = f"{time} {kind} {line.method} {path} {line.status} {line.ms} ms {line.client} {line.request_id}"
    more = [f" {name}={value}" for name, value in (line.slow or {}).items()]
    if line.trace_id:
        more.insert(0, f" trace_id={line.trace_id}")
    return f"{said}{''.join(more)}\n".encode()


def _to_stderr(data: bytes) -> None:
    with suppress(OSError):  # nobody reads it any more
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
