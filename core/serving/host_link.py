"""One connection to one life of an engine host, with the memory that both share."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from core.serving.arena import Arena, ArenaView
from core.serving.flight import FlightRecord
from core.serving.handshake import greet_host
from core.serving.host import flight_id
from core.serving.wire import Blocks, FrameProtocol, Header, Tensors, pack_tensors
from core.signature import Signature

ARENA_BYTES = 256 << 20

OnFrame = Callable[["Link", Header, bytearray], None]


class Link:
    """`open`, then `send` and `tell`; `lost` is set when the host is gone. `on_frame` gets what it answers."""

    def __init__(self, on_frame: OnFrame) -> None:
        self.lost = asyncio.Event()
        self.room = 0
        """Items that the host may run at a time."""
        self.state_bytes = 0
        """What one array of a sequence's state may have, as the host was told."""
        self._on_answer = on_frame
        self._arena = Arena(ARENA_BYTES)
        self._blocks: dict[int, Blocks] = {}
        self._flight: FlightRecord | None = None
        self._view: ArenaView | None = None
        self._number = 0
        self._protocol = FrameProtocol(self._on_frame, self.lost.set)

    async def open(self, path: Path) -> Signature:
        """Connect, exchange descriptors, and let frames flow. Raises whatever says that there is no host."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.setblocking(False)
        try:
            greeting, fds = await greet_host(peer, path, self._arena.fd)
            self._map(*fds)
            self._number, self.room = greeting["connection"], greeting["room"]
            self.state_bytes = greeting["state_bytes"]
            signature = Signature.from_json(greeting["signature"])
            await asyncio.get_running_loop().create_unix_connection(lambda: self._protocol, sock=peer)
        except BaseException:
            peer.close()
            self._arena.close()
            raise
        return signature

    @property
    def view(self) -> ArenaView:
        """The host's memory."""
        assert self._view is not None
        return self._view

    def send(self, id_: int, header: Header, tensors: Tensors) -> None:
        """Send one request; its arrays stay in the arena until the host answers. Raises TooLarge."""
        described, body, blocks = pack_tensors(tensors, self._arena)
        if blocks:
            self._blocks[id_] = blocks
        self._protocol.send({"k": "run", "id": id_, "t": described, **header}, body)

    def keep(self, id_: int, state: Tensors | None) -> None:
        """Send what a sequence's part has left, which the host keeps as it came: so nothing of it in the arena."""
        described, body, _ = pack_tensors(state or {})
        self._protocol.send({"k": "keep", "id": id_, "t": described, "l": state is None}, body)

    def tell(self, kind: str, id_: int) -> None:
        """Send a word about a request: cancel, done, stats."""
        self._protocol.send({"k": kind, "id": id_})

    def aboard(self) -> set[int]:
        """Ids of this connection's requests that were in the engine when the host was lost."""
        if self._flight is None:
            return set()
        ids = self._flight.aboard()
        return {id_ & 0xFFFFFFFFFFFF for id_ in ids if id_ == flight_id(self._number, id_)}

    def close(self) -> None:
        """End the connection and let the memory go. May be called twice."""
        self._protocol.close()
        self._arena.close()
        # Not left to the garbage collector, which comes late: each mapping holds a descriptor.
        self._view = self._flight = None

    @property
    def free_bytes(self) -> int:
        """Room in our arena."""
        return self._arena.free_bytes

    def _map(self, arena_fd: int, flight_fd: int) -> None:
        try:
            self._view = ArenaView(arena_fd)
        except BaseException:
            os.close(flight_fd)
            raise
        self._flight = FlightRecord(flight_fd)

    def _on_frame(self, header: Header, body: bytearray) -> None:
        for block in self._blocks.pop(header["id"], ()):
            self._arena.free(block)
        self._on_answer(self, header, body)
