"""One caller's stream into a deployment: pieces in, partial answers out, each run through the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from core.errors import InvalidInput, PlatformError
from core.serving.request import Timing
from core.serving.steps import Drive
from core.tasks.streams import Answers, TaskStream


class LiveStream:
    """`feed` for each piece, then `finish`; dropped at any time. One call at a time: wait for it before the next.

    `timing` holds the sums of all runs so far. Raises PlatformError; after an error the stream is over.
    """

    def __init__(self, stream: TaskStream, drive: Callable[[Timing], Drive]) -> None:
        self.timing = Timing()
        self._stream: TaskStream | None = stream
        self._drive = drive

    async def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The answers that this piece makes possible, often none. Made of JSON's types."""
        return await self._answer(self._open().feed(chunk))

    async def finish(self) -> list[dict[str, Any]]:
        """The last answers; nothing may be fed after it."""
        stream, self._stream = self._open(), None
        return await self._answer(stream.finish())

    def _open(self) -> TaskStream:
        if self._stream is None:
            raise InvalidInput("The stream has ended; open another.")
        return self._stream

    async def _answer(self, answers: Answers) -> list[dict[str, Any]]:
        started = time.monotonic()
        try:
            return await self._drive(self.timing).answer(answers, admitted=False)
        except PlatformError:
            self._stream = None  # what it knows ends in the middle
            raise
        finally:
            self.timing.total += (time.monotonic() - started) * 1000
