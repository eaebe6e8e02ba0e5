"""A stream of one recording: its messages are pieces of it, and no requests by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import orjson

from app.state import Platform
from core.errors import InvalidInput
from core.serving.deployment import Deployment
from core.serving.idle_model import IdleVersion
from core.serving.live_stream import LiveStream
from core.serving.target import Target

Answers = list[bytes]


def listens(target: Target) -> bool:
    """Whether a target makes something of pieces; otherwise each message is a request of its own."""
    return isinstance(target, Deployment) and target.listens


class Listener:
    """The pieces of one stream, for one version, which is leased as long as the stream lasts."""

    def __init__(self, platform: Platform, model: str, request_id: str, stack: AsyncExitStack) -> None:
        self._platform, self._model, self._request_id = platform, model, request_id
        self._stack = stack
        self._about: dict[str, Any] = {}
        self._stream: LiveStream | None = None

    def expected(self) -> bool | None:
        """Whether the stream will be one of pieces; None for a model that is not loaded."""
        live = self._platform.catalogue.callable_targets(self._model)
        return any(map(listens, live)) if not any(isinstance(one, IdleVersion) for one in live) else None

    @property
    def engine_ms(self) -> float:
        """What the stream has taken of engines so far."""
        return 0.0 if self._stream is None else self._stream.timing.engine

    async def open(self, version: int | None, parameters: Callable[[], Mapping[str, Any]], priority: int) -> bool:
        """Open a stream where the target listens; false where it does not. Raises PlatformError."""
        if self._stream is not None:
            return True
        lease = self._platform.catalogue.lease(self._model, version, self._request_id.encode())
        async with AsyncExitStack() as stack:
            target = await stack.enter_async_context(lease)
            if not isinstance(target, Deployment) or not target.listens:
                return False
            self._stream = target.open_stream(parameters(), priority)
            self._about = {"model": target.model, "version": target.version, "task": target.task}
            self._stack.push_async_exit(stack.pop_all())
        return True

    async def feed(self, data: bytes | str, more: Mapping[str, Any]) -> Answers:
        """What there is to say after one more piece. Raises PlatformError."""
        if isinstance(data, str):
            raise InvalidInput("This model listens: send pieces of the recording as binary messages.")
        assert self._stream is not None
        return self._written(await self._stream.feed(data), more)

    async def finish(self) -> Answers:
        """What is left to say at the end. Raises PlatformError."""
        return [] if self._stream is None else self._written(await self._stream.finish(), {})

    def _written(self, answers: list[dict[str, Any]], more: Mapping[str, Any]) -> Answers:
        assert self._stream is not None
        told = {"request_id": self._request_id, **self._about}
        ending = {"timing_ms": self._stream.timing.to_json(), **more}
        return [orjson.dumps({**told, **one, **ending}, option=orjson.OPT_SERIALIZE_NUMPY) for one in answers]
