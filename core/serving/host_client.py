"""A runner whose engine lives in a host process: sends requests there and brings the answers back.

When the host dies, what was waiting is sent again to the next one, within its deadline. A request that was in
the engine when it died is sent again once, alone; if the host dies with it aboard again, it is refused as
poisonous.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from core import errors
from core.errors import (
    DeadlineExceeded,
    NotReady,
    PlatformError,
    QueueFull,
    RunFailed,
    ShuttingDown,
    Unavailable,
)
from core.serving.host_link import Link
from core.serving.pending import Pending
from core.serving.request import SequencePart
from core.serving.run_result import EachResult, RunResult
from core.serving.runner import OnState, RunnerStats
from core.serving.sequences import Hold, check_state
from core.serving.trace import BatchRun, Halted, Noting
from core.serving.wire import Header, each_of, unpack_tensors
from core.signature import Signature
from core.tasks.base import Prepared
from core.tasks.stepped import State

log = structlog.get_logger(__name__)

Tensors = Mapping[str, np.ndarray[Any, Any]]
RECONNECT_FIRST_S, RECONNECT_MOST_S = 0.02, 0.25
STATS_TIMEOUT_S = 2.0
MAX_CRASHES = 2
HOLD_GRACE_S = 1.0
"""How much longer than the deadline the host has to say that it has passed."""


class HostClient:
    """A Runner over the socket at `path`.

    This process may have `queue_size` items under way beside those that the host can run at a time; what really
    waits is bounded by the host's own queue, which all its clients share.
    """

    def __init__(self, path: Path, queue_size: int) -> None:
        self._path = path
        self._queue_size = queue_size
        self._under_way = 0
        self._room = queue_size
        self._pending: dict[int, Pending] = {}
        self._asked: dict[int, asyncio.Future[RunnerStats]] = {}
        self._holding: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._link: Link | None = None
        self._signature: Signature | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self.losses = 0
        """How many times the host was lost."""

    @property
    def signature(self) -> Signature:
        """Known once started."""
        assert self._signature is not None
        return self._signature

    async def start(self, on_state: OnState) -> None:
        """Connect to a host that is ready. Raises LoadFailed when it does not answer."""
        try:
            self._link = await self._connect()
        except Exception as error:  # no socket, no answer, an answer that is none: no host
            raise errors.LoadFailed("The engine host does not answer.") from error
        self._keeper = asyncio.create_task(self._keep(self._link), name="host connection")

    def admit(self, items: int) -> None:
        """See Runner."""
        if self._closing:
            raise ShuttingDown("This version of the model is being taken down; try again.", retry_after_s=1)
        if self._under_way + items > self._room and self._under_way > 0:
            raise QueueFull("The model's queue is full; try again shortly.", retry_after_s=1)
        self._under_way += items

    def release(self, items: int) -> None:
        """See Runner."""
        self._under_way -= items

    async def run(
        self,
        inputs: Tensors,
        items: int,
        *,
        priority: int,
        deadline: float,
        sibling: bool = False,
        noting: Noting | None = None,
    ) -> RunResult:
        """See Runner."""
        result: RunResult = await self._run(inputs, items, priority, deadline, sibling=sibling, noting=noting)
        return result

    async def run_each(
        self, prepared: Prepared, *, priority: int, deadline: float, noting: Noting | None = None
    ) -> EachResult:
        """See Runner."""
        items = len(prepared.contexts)
        result: EachResult = await self._run(prepared.inputs, items, priority, deadline, prepared, noting=noting)
        return result

    async def _run(
        self,
        inputs: Tensors,
        items: int,
        priority: int,
        deadline: float,
        each: Prepared | None = None,
        sibling: bool = False,
        noting: Noting | None = None,
    ) -> Any:
        since = time.monotonic()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        pending = Pending(next(self._ids), inputs, items, priority, deadline, future, each, sibling)
        self._pending[pending.id] = pending
        timer = loop.call_later(deadline - time.monotonic(), self._expire, pending)
        try:
            self._send(pending)
            return await future
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self._tell_cancelled(pending)
            if noting is not None:
                _note_failure(noting, pending, since, error)
            raise
        finally:
            timer.cancel()
            self._pending.pop(pending.id, None)
            self._under_way -= items

    async def hold(self, part: SequencePart, deadline: float) -> Hold:
        """See Runner. The states are the host's: when it dies, all sequences end."""
        link, id_ = self._link, next(self._ids)
        if link is None:
            raise NotReady("The model's process is being started again.", retry_after_s=1)
        asked: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._holding[id_] = asked
        link.send(id_, {"k": "hold", "s": part.id, "b": part.start, "d": deadline}, {})
        try:
            async with asyncio.timeout(deadline - time.monotonic() + HOLD_GRACE_S):
                return HostHold(link, id_, await asked)
        except BaseException as error:
            link.tell("unhold", id_)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("The deadline passed while the sequence waited.") from None
            raise
        finally:
            self._holding.pop(id_, None)

    async def stats(self) -> RunnerStats:
        """See Runner; empty while the host is away."""
        link = self._link
        if link is None:
            return self._away()
        asked: asyncio.Future[RunnerStats] = asyncio.get_running_loop().create_future()
        id_ = next(self._ids)
        self._asked[id_] = asked
        link.tell("stats", id_)
        try:
            async with asyncio.timeout(STATS_TIMEOUT_S):
                stats = await asked
        except TimeoutError:
            return self._away()
        finally:
            self._asked.pop(id_, None)
        stats.restarts = self.losses
        return stats

    async def close(self) -> None:
        """See Runner."""
        self._closing = True
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        for pending in list(self._pending.values()):
            pending.fail(ShuttingDown("The model was taken down before this request ran."))
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _send(self, pending: Pending) -> None:
        if self._link is not None:
            self._link.send(pending.id, pending.header(), pending.inputs)
        # Otherwise it goes out with the rest once there is a host again.

    def _expire(self, pending: Pending) -> None:
        pending.fail(DeadlineExceeded("The deadline passed before the model answered."))
        self._tell_cancelled(pending)

    def _tell_cancelled(self, pending: Pending) -> None:
        # Its place in our arena stays taken: the host may be reading it, and answers when it is not any more.
        if self._link is not None:
            self._link.tell("cancel", pending.id)

    async def _keep(self, link: Link) -> None:
        """Hold the connection: when it is lost, sort out who was aboard, connect again, send again."""
        while True:
            await link.lost.wait()
            self._link = None
            self.losses += 1
            self._note_aboard(link.aboard())
            link.close()
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_result(self._away())
            for held in self._holding.values():
                if not held.done():
                    held.set_exception(Unavailable("The model's process ended; start the sequence anew."))
            link = await self._reconnect()
            self._link = link
            for pending in list(self._pending.values()):
                self._send_again(pending)

    def _note_aboard(self, aboard: set[int]) -> None:
        log.warning("host.lost", waiting=len(self._pending), aboard=len(aboard))
        for id_ in aboard & self._pending.keys():
            pending = self._pending[id_]
            pending.crashes += 1
            if pending.crashes >= MAX_CRASHES:
                del self._pending[id_]
                pending.fail(RunFailed("This input has crashed the model's engine twice and is refused."))

    def _send_again(self, pending: Pending) -> None:
        try:
            self._send(pending)
        except PlatformError as error:
            pending.fail(error)

    async def _reconnect(self) -> Link:
        wait_s = RECONNECT_FIRST_S
        while True:
            try:
                return await self._connect()
            except (FileNotFoundError, ConnectionError):  # not there yet
                pass
            except Exception as error:
                log.warning("host.unreachable", error=repr(error))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, RECONNECT_MOST_S)

    async def _connect(self) -> Link:
        link = Link(self._answered)
        self._signature = await link.open(self._path)
        self._room = self._queue_size + link.room
        return link

    def _away(self) -> RunnerStats:
        return RunnerStats(depth=self._under_way, restarts=self.losses)

    def _answered(self, link: Link, header: Header, body: bytearray) -> None:
        """A frame came from the host."""
        kind, id_ = header["k"], header["id"]
        if kind == "stats":
            asked = self._asked.get(id_)
            if asked is not None and not asked.done():
                asked.set_result(_stats(header["stats"]))
            return
        held = self._holding.get(id_)
        if held is not None:
            _answer_hold(held, header, body, link)
            return
        if kind == "state":  # whoever asked for it has gone
            link.tell("unhold", id_)
            return
        pending = self._pending.pop(id_, None)
        if kind == "result":
            if pending is not None and not pending.future.done():
                pending.future.set_result(_result(header, body, link))
            link.tell("done", id_)
        elif pending is not None:
            if "a" in header:
                pending.halted = Halted(header["q"], header["a"], _batch(header))
            pending.fail(error_from(header))


class HostHold:
    """A Hold on a sequence that the host keeps."""

    def __init__(self, link: Link, id_: int, state: State) -> None:
        self.state = state
        self._link = link
        self._id = id_

    def keep(self, state: State | None) -> None:
        """See Hold. Raises RunFailed, having given back, for what is too large."""
        try:
            check_state(state, self._link.state_bytes)
        except RunFailed:
            self.give_back()
            raise
        self._link.keep(self._id, state)

    def give_back(self) -> None:
        """See Hold."""
        self._link.tell("unhold", self._id)


def _answer_hold(held: asyncio.Future[dict[str, Any]], header: Header, body: bytearray, link: Link) -> None:
    if held.done():
        return
    if header["k"] == "state":
        held.set_result(unpack_tensors(header["t"], body, link.view))
    else:
        held.set_exception(error_from(header))


def _result(header: Header, body: bytearray, link: Link) -> RunResult | EachResult:
    described = header["t"]
    tensors = unpack_tensors(described, body, link.view)
    # Copied out: the host takes its memory back as soon as it hears that we are done.
    outputs = {
        name: array.copy() if where == "arena" else array
        for (name, array), (_, _, _, where, *_) in zip(tensors.items(), described, strict=True)
    }
    times_s = header["q"], header["i"], header["b"], header["s"], header["a"]
    batch = _batch(header)
    if "e" in header:
        return EachResult(each_of(outputs, header["e"]), *times_s, batch)
    return RunResult(outputs, *times_s, batch)


def _batch(header: Header) -> BatchRun | None:
    return BatchRun.from_json(header["x"]) if "x" in header else None


def _note_failure(noting: Noting, pending: Pending, since: float, error: BaseException) -> None:
    """How far it came, where the host has told that; whether it waited or ran there is not known otherwise."""
    if pending.halted is not None:
        noting.cut_short(pending.halted, error)
    else:
        noting.failed("host", since, error)


def _stats(said: dict[str, Any]) -> RunnerStats:
    # JSON has no numbers for keys.
    for name in ("batch_sizes", "batch_seconds", "batch_threads"):
        said[name] = {int(size): value for size, value in said[name].items()}
    return RunnerStats(**said)


def error_from(header: Header) -> PlatformError:
    """The error that another process has told: its code, message `m` and Retry-After `r`, in seconds or None."""
    return _errors_by_code().get(header["code"], RunFailed)(header["m"], retry_after_s=header["r"])


@cache
def _errors_by_code() -> dict[str, type[PlatformError]]:
    return {kind.code: kind for kind in _all_errors(PlatformError)}


def _all_errors(root: type[PlatformError]) -> list[type[PlatformError]]:
    return [root, *(inner for kind in root.__subclasses__() for inner in _all_errors(kind))]
