"""The inside of an engine host: serves one runner to other processes over a Unix socket.

Every request is answered exactly once, whatever happens to it: only then may its sender use its memory again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from core.errors import PlatformError, RunFailed
from core.serving.arena import Arena, ArenaView
from core.serving.engine_worker import Batch
from core.serving.flight import FlightRecorder
from core.serving.handshake import greet_client
from core.serving.host_group import Group
from core.serving.host_holds import HostHolds
from core.serving.request_queue import QueuedRequest
from core.serving.run_result import times_of
from core.serving.runner import LocalRunner
from core.serving.trace import SpanId
from core.serving.wire import Blocks, FrameProtocol, Header, Tensors, all_of, pack_tensors, unpack_tensors
from core.tasks.base import Padding, Prepared

log = structlog.get_logger(__name__)

ANSWER_ARENA_BYTES = 256 << 20
RECORDED_SLOTS = 64
ACCEPT_AGAIN_S = 0.1


class HostServer:
    """Listens, and lets every connection use the runner."""

    def __init__(self, runner: LocalRunner, path: Path) -> None:
        self.runner = runner
        self._path = path
        self._flight = FlightRecorder(max(RECORDED_SLOTS, runner.options.most))
        self._connections: set[HostConnection] = set()
        self._welcomes: set[asyncio.Task[None]] = set()
        self._number = 0
        self._aboard: list[Batch] = []
        """Those that run: what their requests were given is in use."""
        self._readers: list[tuple[list[Batch], Callable[[], None]]] = []
        runner.on_batch_start = self._board
        runner.on_batch_end = self._land

    def listen(self) -> socket.socket:
        """Open the socket; whoever connects from now on waits to be accepted."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path.unlink(missing_ok=True)
        listener.bind(str(self._path))
        listener.listen(64)
        listener.setblocking(False)
        return listener

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    peer, _ = await loop.sock_accept(listener)
                except OSError as error:  # no descriptors left, for one: those who are connected go on
                    log.warning("host.accept_failed", error=str(error))
                    await asyncio.sleep(ACCEPT_AGAIN_S)
                    continue
                self._number += 1
                # A task each: one that does not greet holds up nobody.
                welcome = asyncio.create_task(self._welcome(peer, self._number), name=f"welcome {self._number}")
                self._welcomes.add(welcome)
                welcome.add_done_callback(self._welcomes.discard)

    async def _welcome(self, peer: socket.socket, number: int) -> None:
        peer.setblocking(False)
        arena = Arena(ANSWER_ARENA_BYTES)
        options = self.runner.options
        greeting = {
            "connection": number,
            "signature": self.runner.signature.to_json(),
            "room": options.most * options.max_batch,
            "state_bytes": self.runner.sequences.limits.state_bytes,
        }
        try:
            view = ArenaView(await greet_client(peer, greeting, [arena.fd, self._flight.fd]))
            connection = HostConnection(self, number, arena, view)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection.protocol, peer)
        except (OSError, TimeoutError, ValueError) as error:
            log.warning("host.not_greeted", error=repr(error))
            arena.close()
            peer.close()
        else:
            self._connections.add(connection)

    def gone(self, connection: HostConnection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)

    def once_read(self, requests: Sequence[QueuedRequest], then: Callable[[], None]) -> None:
        """Do this when no batch has any of these aboard: at once, or at the end of the last that has."""
        readers = [batch for batch in self._aboard if not set(batch.requests).isdisjoint(requests)]
        if readers:
            self._readers.append((readers, then))
        else:
            then()

    def _board(self, slot: int, batch: Batch) -> None:
        self._flight.board(slot, [request.tag for request in batch.requests])
        self._aboard.append(batch)

    def _land(self, slot: int, batch: Batch) -> None:
        self._flight.land(slot)
        self._aboard.remove(batch)
        if self._readers:
            self._tell_read(batch)

    def _tell_read(self, batch: Batch) -> None:
        waiting, self._readers = self._readers, []
        for readers, then in waiting:
            left = [one for one in readers if one is not batch]
            if left:
                self._readers.append((left, then))
            else:
                then()


class HostConnection:
    """One server process at the other end."""

    def __init__(self, server: HostServer, number: int, arena: Arena, view: ArenaView) -> None:
        self._server = server
        self._number = number
        self._arena = arena
        self._view = view
        self._waiting: dict[int, QueuedRequest] = {}
        self._groups: dict[int, Group] = {}
        self._answers: dict[int, Blocks] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self.protocol = FrameProtocol(self._on_frame, self._on_lost)
        self._holds = HostHolds(server.runner.sequences, self._send_state, self._refuse)

    def _on_frame(self, header: Header, body: bytearray) -> None:
        kind = header["k"]
        if kind == "run":
            self._run(header, body)
        elif kind == "done":
            for block in self._answers.pop(header["id"], ()):
                self._arena.free(block)
        elif kind == "cancel":
            self._cancel(header["id"])
        elif kind == "hold":
            self._holds.begin(header)
        elif kind == "keep":
            state = unpack_tensors(header["t"], body, self._view)
            self._holds.keep(header["id"], None if header["l"] else state)
        elif kind == "unhold":
            self._holds.give_back(header["id"])
        elif kind == "stats":
            task = asyncio.create_task(self._stats(header["id"]), name="host stats")
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def _run(self, header: Header, body: bytearray) -> None:
        request_id = header["id"]
        try:
            inputs = unpack_tensors(header["t"], body, self._view)
            if "e" in header:
                self._groups[request_id] = self._submit_each(header, inputs)
                return
            queued = self._submit(header, inputs)
        except PlatformError as error:
            self._refuse(request_id, error)
            return
        except Exception:
            log.exception("host.request_unreadable")
            self._refuse(request_id, RunFailed("The model's process could not read the request."))
            return
        self._waiting[request_id] = queued
        queued.future.add_done_callback(lambda future: self._ended(request_id, queued))

    def _submit(self, header: Header, inputs: dict[str, Any]) -> QueuedRequest:
        runner = self._server.runner
        runner.admit(header["n"])
        return runner.submit(
            inputs,
            header["n"],
            priority=header["p"],
            deadline=header["d"],
            solo=header["s"],
            tag=flight_id(self._number, header["id"]),
            trace_id=traced(header),
            sibling=header.get("g", False),
        )

    def _submit_each(self, header: Header, inputs: dict[str, Any]) -> Group:
        """The items of a request, each in the queue by itself."""
        runner, request_id = self._server.runner, header["id"]
        lengths, padding = header["e"]
        paddings = {name: Padding(*said) for name, said in padding.items()}
        runner.admit(header["n"])
        parts = runner.submit_each(
            Prepared(inputs, [None] * header["n"], lengths, paddings),
            priority=header["p"],
            deadline=header["d"],
            solo=header["s"],
            tag=flight_id(self._number, request_id),
            trace_id=traced(header),
        )
        return Group(parts, runner.leave, lambda group: self._group_ended(request_id, group))

    def _group_ended(self, request_id: int, group: Group) -> None:
        if group.error is None:
            self._group_finished(request_id, group)
        else:
            self._server.once_read(group.parts, lambda: self._group_finished(request_id, group))

    def _group_finished(self, request_id: int, group: Group) -> None:
        self._groups.pop(request_id, None)
        if not self.protocol.is_open:
            return
        if group.cancelled:
            self._send_error(request_id, "cancelled", "")
        elif group.error is not None:
            self._refuse(request_id, group.error, group.failed)
        else:
            more = {"e": len(group.outputs), "s": group.engine_s}
            self._try_answer(request_id, all_of(group.outputs), group.last, more)

    def _cancel(self, request_id: int) -> None:
        group = self._groups.get(request_id)
        if group is not None:
            group.cancel()
        queued = self._waiting.get(request_id)
        if queued is not None and not queued.started_at:
            self._server.runner.leave(queued)
            queued.future.cancel()
        # One that runs is answered when its batch ends: its memory is in use until then.

    def _ended(self, request_id: int, queued: QueuedRequest) -> None:
        future = queued.future
        if future.cancelled() or future.exception() is None:
            self._finished(request_id, queued)
        else:  # it may be its deadline alone that has passed
            self._server.once_read([queued], lambda: self._finished(request_id, queued))

    def _finished(self, request_id: int, queued: QueuedRequest) -> None:
        self._waiting.pop(request_id, None)
        if not self.protocol.is_open:
            return
        if queued.future.cancelled():
            self._send_error(request_id, "cancelled", "")
            return
        error = queued.future.exception()
        if error is not None:
            self._refuse(request_id, error, queued)
            return
        self._try_answer(request_id, queued.future.result(), queued, {})

    def _try_answer(self, request_id: int, outputs: Tensors, queued: QueuedRequest, more: Header) -> None:
        try:
            self._answer(request_id, outputs, queued, more)
        except Exception as failure:
            log.exception("host.answer_unsendable")
            known = isinstance(failure, PlatformError)
            self._refuse(request_id, failure if known else RunFailed("The model's answer cannot be passed on."))

    def _answer(self, request_id: int, outputs: Tensors, queued: QueuedRequest, more: Header) -> None:
        described, parts, blocks = pack_tensors(outputs, self._arena)
        if blocks:
            self._answers[request_id] = blocks
        queue_s, infer_s, batch_wait_s, engine_s, began = times_of(queued, queued.engine_s)
        times_s = {"q": queue_s, "i": infer_s, "b": batch_wait_s, "s": engine_s, "a": began}
        header = {"k": "result", "id": request_id, "t": described, **times_s, **_batch(queued), **more}
        self.protocol.send(header, parts)

    def _refuse(self, request_id: int, error: BaseException, queued: QueuedRequest | None = None) -> None:
        """Tell an error, and of a request that is traced how far it came."""
        if not isinstance(error, PlatformError):
            log.error("host.request_crashed", error=repr(error))
            error = RunFailed("The model's process failed on this input.")
        more: Header = {}
        if queued is not None and queued.trace_id is not None:
            more = {"q": queued.enqueued_at, "a": queued.started_at, **_batch(queued)}
        self._send_error(request_id, error.code, error.message, error.retry_after_s, more)

    def _send_error(
        self,
        request_id: int,
        code: str,
        message: str,
        retry_after_s: float | None = None,
        more: Header | None = None,
    ) -> None:
        header = {"k": "error", "id": request_id, "code": code, "m": message, "r": retry_after_s}
        self.protocol.send({**header, **(more or {})})

    async def _stats(self, request_id: int) -> None:
        stats = asdict(await self._server.runner.stats())
        for name in ("batch_sizes", "batch_seconds", "batch_threads"):
            stats[name] = {str(size): value for size, value in stats[name].items()}
        self.protocol.send({"k": "stats", "id": request_id, "stats": stats})

    def _send_state(self, request_id: int, state: Tensors) -> None:
        described, body, _ = pack_tensors(state)
        self.protocol.send({"k": "state", "id": request_id, "t": described}, body)

    def _on_lost(self) -> None:
        self._holds.close()
        for queued in list(self._waiting.values()):
            if not queued.future.done() and not queued.started_at:
                self._server.runner.leave(queued)
                queued.future.cancel()
        for group in list(self._groups.values()):
            group.cancel()
        self._answers.clear()
        self._arena.close()
        self._server.gone(self)


def _batch(queued: QueuedRequest) -> Header:
    return {} if queued.batch is None else {"x": queued.batch.to_json()}


def traced(header: Header) -> SpanId | None:
    """The span of the call that a request is for, where that is traced."""
    return SpanId(*header["x"]) if "x" in header else None


def flight_id(connection: int, request_id: int) -> int:
    """An id that no other connection uses: 16 bits of connection, 48 of request."""
    return (connection & 0xFFFF) << 48 | (request_id & 0xFFFFFFFFFFFF)


def wait_for_parent() -> None:
    """End this process when its parent is gone: standard input is a pipe that only the parent holds open."""
    while os.read(0, 4096):
        time.sleep(0)
    os._exit(0)
