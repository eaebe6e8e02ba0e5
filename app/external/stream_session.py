"""One stream: frames in, answers out in the frames' order, and no more of either in memory than agreed.

The reader takes a frame when there is room, or in the mode `newest` always, and then the frame before it that has
not begun yet is dropped. Each frame is a request of its own, with its own lease, so that a new version takes over
between two frames. The sender awaits the answers in order. A frame has room until its answer was sent: a peer that
does not read makes the reader stop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from app.external.call import Call, bind_call, read_json
from app.external.door import charge, priority_of
from app.external.inference import SMALL_BODY_BYTES, count_error, count_usage, taken_by, write_result
from app.external.stream_listener import Listener
from app.external.stream_options import StreamOptions, change_options
from app.external.stream_statistics import StreamStatistics
from app.state import Platform
from app.tallies import note_answer
from core.access.records import TokenRecord
from core.access.usage import NOTHING, Taken
from core.errors import (
    BadRequest,
    Forbidden,
    LimitExceeded,
    MalformedBody,
    NotFound,
    PlatformError,
    Unauthenticated,
)
from core.serving.request import InferenceRequest
from core.serving.target import Target
from core.serving.trace import current
from core.tasks.base import Payload

ENDED: Final = 1000
GOING_AWAY: Final = 1001
OURS: Final = 4000
"""Added to an HTTP status, the close code of a stream that ends for such an error (RFC 6455, section 7.4.2)."""
IDLE: Final = OURS + 408
MAX_CONTROL: Final = 4096
"""Characters of a control message: a longer text must be a frame."""


class Wire(Protocol):
    """The connection as a stream needs it."""

    async def receive(self) -> bytes | str | None:
        """The next message; None once the peer has closed."""

    async def send(self, body: bytes) -> None:
        """Send a text message. Raises PeerGone or SlowReader."""


class PeerGone(Exception):
    """The peer has closed the connection, or lost it."""


class SlowReader(Exception):
    """The peer has not read what was sent to it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stream ends, as its close frame says it."""

    code: int
    reason: str


@dataclass(slots=True)
class Frame:
    """One frame and when it came, in seconds of `time.monotonic()`."""

    number: int
    data: bytes | str
    came_at: float


@dataclass(slots=True)
class Answer:
    """What is sent for one frame."""

    bodies: list[bytes]
    """One message, but for a piece of a recording: after that, there may be nothing to say."""
    failed: bool


@dataclass(slots=True)
class _Used:
    """What one frame has used, once it was let in."""

    record: TokenRecord | None = None
    taken: Taken = NOTHING


class Session:
    """`await run()` until the stream is over; `stop` ends it from elsewhere."""

    def __init__(
        self,
        wire: Wire,
        platform: Platform,
        model: str,
        token: Callable[[], TokenRecord],
        options: StreamOptions,
        request_id: str,
    ) -> None:
        self.statistics = StreamStatistics()
        self._wire = wire
        self._platform = platform
        self._settings = platform.settings.streams
        self._model = model
        self._token = token
        self._options = options
        self._request_id = request_id
        self._answers: asyncio.Queue[tuple[Frame, asyncio.Task[Answer]]] = asyncio.Queue()
        """Never longer than `in_flight`."""
        self._flying = 0
        self._waiting: Frame | None = None
        """In the mode `newest`, the frame that begins when there is room."""
        self._moved = asyncio.Event()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._stack = AsyncExitStack()
        self._listener = Listener(platform, model, request_id, self._stack)
        self._listening = self._listener.expected()
        """Whether the messages are pieces of one recording; None until a model that is not loaded is."""

    def stop(self, ending: Ending) -> None:
        """Take no more frames, answer those that were taken, and end."""
        if not self._ending.done():
            self._ending.set_result(ending)

    async def run(self) -> Ending:
        """Answer frames until the end, which is answered. Raises PeerGone or SlowReader."""
        sender = asyncio.create_task(self._deliver(), name="stream sender")
        reader = asyncio.create_task(self._read(), name="stream reader")
        try:
            over: set[asyncio.Future[Any]] = {reader, sender, self._ending}
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                self.stop(reader.result())
            await _end(reader)
            drained = asyncio.create_task(self._drained(), name="stream drain")
            try:
                await asyncio.wait({drained, sender}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(drained)
            if sender.done():
                sender.result()
            await self._finish()
            await self._tell_statistics()
            return self._ending.result()
        finally:
            await self._stack.aclose()
            await _end(reader, sender)
            while not self._answers.empty():
                await _end(self._answers.get_nowait()[1])

    # In

    async def _read(self) -> Ending:
        while True:
            while self._options.mode == "wait" and self._flying >= self._room():
                await self._change()
            message = await self._next()
            if message is None:
                return Ending(IDLE, f"Nothing came for {self._settings.idle_s:g} seconds.")
            try:
                ended = await self._take(message)
            except (BadRequest, MalformedBody) as error:
                return Ending(OURS + error.status, error.message)
            if ended:
                return Ending(ENDED, "")

    def _room(self) -> int:
        """Pieces of a recording go in one by one, and so does what may be one."""
        return self._options.in_flight if self._listening is False else 1

    async def _next(self) -> bytes | str | None:
        """The next message; None where none came for too long while nothing was under way."""
        # One receive for all the timeouts: a message must not be lost by a cancelled one.
        receiving = asyncio.ensure_future(self._wire.receive())
        try:
            while not (await asyncio.wait({receiving}, timeout=self._settings.idle_s))[0]:
                if not self._flying:
                    return None
            message = receiving.result()
        finally:
            receiving.cancel()
        if message is None:
            raise PeerGone
        return message

    async def _take(self, message: bytes | str) -> bool:
        """Begin a frame, or do what a control message says; true where that is the end."""
        said = _read_control(message) if isinstance(message, str) else None
        if said is None:
            self._begin_or_wait(message)
            return False
        kind = said.pop("type")
        if kind == "end":
            return True
        if kind == "statistics":
            await self._tell_statistics()
        elif kind == "configure":
            self._configure(said)
        else:
            raise BadRequest(f"There is no message of the type {str(kind)[:64]!r}.")
        return False

    def _configure(self, said: Mapping[str, Any]) -> None:
        if self.statistics.received and said.keys() & {"mode", "in_flight"}:
            raise BadRequest("`mode` and `in_flight` must be said before the first frame.")
        self._options = change_options(self._options, said, max_in_flight=self._settings.max_in_flight)

    def _begin_or_wait(self, data: bytes | str) -> None:
        frame = Frame(self.statistics.came(len(data)), data, time.monotonic())
        if self._flying < self._room():
            self._begin(frame)
            return
        if self._waiting is not None:
            self.statistics.dropped += 1
            self._platform.stream_counts.frame(self._model, "dropped")
        self._waiting = frame

    def _begin(self, frame: Frame) -> None:
        self._flying += 1
        task = asyncio.create_task(self._answer(frame), name="stream frame")
        self._answers.put_nowait((frame, task))

    # Between

    async def _answer(self, frame: Frame) -> Answer:
        """In a task of its own, and so in a span of its own where the stream is traced."""
        outer = current.get()
        trace = None if outer is None else outer.child()
        current.set(trace)
        answer = await self._answer_frame(frame)
        if trace is not None:
            attributes = {"pulvinar.frame": frame.number, "pulvinar.request_id": self._request_id}
            trace.end("frame", attributes, failed=answer.failed)
        return answer

    async def _answer_frame(self, frame: Frame) -> Answer:
        data, frame.data = frame.data, b""  # the frame outlives its bytes
        more = {"frame": frame.number}
        used = _Used()
        answer = Answer([], failed=True)
        try:
            record = self._token()
            await charge(self._platform, record)
            used.record = record
            if await self._is_listening(record):
                heard_ms = self._listener.engine_ms
                answer = Answer(await self._listener.feed(data, more), failed=False)
                used.taken = Taken(1, 0, self._listener.engine_ms - heard_ms)
            else:
                answer = Answer([await self._infer(data, more, record, used)], failed=False)
        except PlatformError as error:
            # What was heard before is lost with an error; a rate that is used up has only cost this piece.
            if self._listening and not isinstance(error, LimitExceeded):
                self.stop(Ending(OURS + error.status, error.message))
            answer = Answer([self._told(error, more)], failed=True)
        finally:
            if used.record is not None:
                bytes_out = sum(map(len, answer.bodies))
                count_usage(
                    self._platform,
                    used.record,
                    self._model,
                    used.taken,
                    len(data),
                    bytes_out,
                    failed=answer.failed,
                )
        return answer

    async def _is_listening(self, record: TokenRecord) -> bool:
        if self._listening is not False:
            self._listening = await self._listener.open(
                self._options.version, lambda: self._options.parameters, priority_of(record)
            )
        return self._listening

    async def _finish(self) -> None:
        """The last words about a recording."""
        try:
            bodies = await self._listener.finish()
        except PlatformError as error:
            bodies = [self._told(error, {})]
        for body in bodies:
            await self._wire.send(body)

    def _told(self, error: PlatformError, more: Mapping[str, Any]) -> bytes:
        """Count an error and write it; the stream ends for what the next frame would meet again."""
        if isinstance(error, Unauthenticated | Forbidden | NotFound):
            self.stop(Ending(OURS + error.status, error.message))
        count_error(self._platform, self._model, 0, error.status, error.code)
        said: dict[str, Any] = {"code": error.code, "message": error.message, "request_id": self._request_id}
        if error.retry_after_s is not None:
            said["retry_after_s"] = error.retry_after_s
        return orjson.dumps({**more, "error": said})

    async def _infer(self, data: bytes | str, more: Mapping[str, Any], record: TokenRecord, used: _Used) -> bytes:
        platform, options = self._platform, self._options
        key = self._request_id.encode()  # one version for the whole stream, while the weights stay
        lease = platform.catalogue.lease(self._model, options.version, key)
        async with lease as target:
            max_items = platform.settings.inference.max_items
            if isinstance(data, str) and len(data) > SMALL_BODY_BYTES:
                request = await asyncio.to_thread(_read_frame, target, data, max_items)
            else:
                request = _read_frame(target, data, max_items)
            request.request_id, request.deadline = self._request_id, lease.deadline
            request.priority = priority_of(record)
            request.parameters = {**options.parameters, **request.parameters}
            result = await platform.statistics.infer(target, request)
        note_answer(platform, target, result, lease.waited_ms)
        used.taken = taken_by(result)
        return await write_result(self._request_id, result, len(request.payloads or ()), more)

    # Out

    async def _deliver(self) -> None:
        while True:
            frame, task = await self._answers.get()
            answer = await task
            for body in answer.bodies:
                await self._wire.send(body)
            self.statistics.sent((time.monotonic() - frame.came_at) * 1000, failed=answer.failed)
            self._platform.stream_counts.frame(self._model, "failed" if answer.failed else "answered")
            self._flying -= 1
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                self._begin(waiting)
            self._moved.set()

    async def _tell_statistics(self) -> None:
        await self._wire.send(orjson.dumps({"type": "statistics", **self.statistics.to_json()}))

    async def _drained(self) -> None:
        while self._flying:
            await self._change()

    async def _change(self) -> None:
        self._moved.clear()
        await self._moved.wait()


def _read_frame(target: Target, data: bytes | str, max_items: int) -> InferenceRequest:
    call = read_json(data.encode()) if isinstance(data, str) else Call([Payload(data)])
    return bind_call(target, call, max_items=max_items)


def _read_control(message: str) -> dict[str, Any] | None:
    """A control message, or None for a frame in JSON. Raises MalformedBody or BadRequest."""
    if len(message) > MAX_CONTROL:
        if '"inputs"' not in message:  # a frame is read where it is worked on: here a look must do
            raise BadRequest(
                f"A control message has at most {MAX_CONTROL} characters, and a longer text `inputs`."
            )
        return None
    try:
        said = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise MalformedBody("A text message must be JSON.") from error
    if isinstance(said, dict) and "inputs" in said:
        return None
    if not isinstance(said, dict) or "type" not in said:
        raise BadRequest("A text message must be an object with `inputs`, or a control message with its `type`.")
    return said


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end, whatever it is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
