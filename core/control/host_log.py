"""The last lines that engine hosts wrote, kept over their deaths."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LINES = 200
KEPT_LOGS = 64
LINE_CHARACTERS = 1000
SUMMARY_CHARACTERS = 300
_CHUNK_BYTES = 16 * 1024
_PATH = re.compile(r"(?<![\w/])/(?:[^\s/:'\"]+/)+")
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f]")


class Line(NamedTuple):
    """One line: when it came (seconds of the epoch), and whether the host wrote it or we about the host."""

    at_s: float
    text: str
    ours: bool


HostLines = Mapping[str, Sequence[tuple[float, str, bool]]]
"""The lines of a model's hosts, by version; each a Line, or what JSON makes of one."""


class HostLog:
    """Bounded, whatever comes: lines without end are cut, bytes that are no text replaced."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=LINES)

    def lines(self) -> list[Line]:
        """All that are kept, oldest first."""
        return list(self._lines)

    def last(self, count: int) -> list[str]:
        """The newest lines that the host wrote, oldest first."""
        return [line.text for line in self._lines if not line.ours][-count:]

    def summary(self) -> str:
        """The host's last line for a reader who need not know where things lie: without directories."""
        for line in reversed(self._lines):
            if line.text.strip() and not line.ours:
                return _PATH.sub("", line.text.strip())[:SUMMARY_CHARACTERS]
        return ""

    def note(self, text: str) -> None:
        """Write down what happened to the host, among its own lines."""
        self._lines.append(Line(time.time(), text, ours=True))

    async def follow(self, stream: asyncio.StreamReader) -> None:
        """Read to the end, without ever making the writer wait for long."""
        rest = b""
        while chunk := await stream.read(_CHUNK_BYTES):
            *whole, rest = (rest + chunk).splitlines(keepends=True)
            if rest.endswith((b"\n", b"\r")):
                whole.append(rest)
                rest = b""
            for line in whole:
                self._add(line)
            rest = rest[:LINE_CHARACTERS]
        if rest:
            self._add(rest)

    def _add(self, line: bytes) -> None:
        text = _CONTROL.sub("", line[:LINE_CHARACTERS].decode("utf-8", "replace")).rstrip()
        if text:
            self._lines.append(Line(time.time(), text, ours=False))


class HostLogs:
    """A log for each version that has or had a host; where there are too many, the one opened first goes."""

    def __init__(self) -> None:
        self._logs: OrderedDict[tuple[str, int], HostLog] = OrderedDict()

    def open(self, model: str, version: int) -> HostLog:
        """The log of a version; the same as before, so that what ended the host before is still there."""
        log = self._logs.setdefault((model, version), HostLog())
        self._logs.move_to_end((model, version))
        while len(self._logs) > KEPT_LOGS:
            self._logs.popitem(last=False)
        return log

    def of(self, model: str) -> HostLines:
        """The lines of a model's hosts, by version."""
        found = {version: log for (name, version), log in self._logs.items() if name == model}
        # Plain tuples: what goes to a worker is JSON, which knows no others.
        return {
            str(version): [(line.at_s, line.text, line.ours) for line in found[version].lines()]
            for version in sorted(found)
        }

    async def ask(self, model: str) -> HostLines:
        """As `of`, for those who may have to ask another process."""
        return self.of(model)
