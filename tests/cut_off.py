"""A way to a server that can be cut: a small TCP proxy, which stops to forward, or stops to listen."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Self

CHUNK_BYTES = 1 << 16


class CutOff:
    """`with CutOff(port) as way:` forwards `way.port` to that port of this machine.

    `cut()` holds all bytes back, and connections stay as a broken network leaves them; `cut(close=True)` closes
    and refuses them, as a server that has stopped. `heal()` ends either.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._refusing = False
        self._ended = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._whole.set()
        self._close_all()
        self._listener.close()

    def cut(self, *, close: bool = False) -> None:
        """Nothing passes from now on."""
        self._refusing = close
        self._whole.clear()
        if close:
            self._close_all()

    def heal(self) -> None:
        """Everything passes again, what was held back too."""
        self._refusing = False
        self._whole.set()

    def _accept(self) -> None:
        while not self._ended:
            with contextlib.suppress(OSError):
                ready, _, _ = select.select([self._listener], [], [], 0.2)
                if ready:
                    self._take(self._listener.accept()[0])

    def _take(self, caller: socket.socket) -> None:
        if self._refusing:
            caller.close()
            return
        pair = caller, socket.create_connection(("127.0.0.1", self._target))
        with self._lock:
            self._pairs.add(pair)
        for source, sink in (pair, pair[::-1]):
            threading.Thread(target=self._forward, args=[source, sink, pair], daemon=True).start()

    def _forward(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._whole.wait()
                sink.sendall(data)
        self._close(pair)

    def _close_all(self) -> None:
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._close(pair)

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
