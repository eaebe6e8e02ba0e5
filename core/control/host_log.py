"""The last lines that an engine host wrote."""

from __future__ import annotations

import asyncio
import re
from collections import deque

LINES = 200
LINE_CHARACTERS = 1000
SUMMARY_CHARACTERS = 300
_CHUNK_BYTES = 16 * 1024
_PATH = re.compile(r"(?<![\w/])/(?:[^\s/:'\"]+/)+")
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f]")


class HostLog:
    """Bounded, whatever comes: lines without end are cut, bytes that are no text replaced."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES)

    def last(self, count: int) -> list[str]:
        """The newest lines, oldest first."""
        return list(self._lines)[-count:]

    def summary(self) -> str:
        """The last line for a reader who need not know where things lie: without directories."""
        for line in reversed(self._lines):
            if line.strip():
                return _PATH.sub("", line.strip())[:SUMMARY_CHARACTERS]
        return ""

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
            self._lines.append(text)
