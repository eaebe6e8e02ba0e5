"""What a server and its engine hosts say to each other: frames over a Unix socket, arrays beside or inside them.

A frame is two lengths, a JSON header and a body. Small arrays travel in the body; larger ones are left in the
sender's arena and only named, or travel in the body too where it is full. Both ends are the same release on the
same machine, so there is no versioning.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import orjson
import structlog

from core.errors import TooLarge
from core.serving.arena import Arena, ArenaView, Block

log = structlog.get_logger(__name__)

_LENGTHS = struct.Struct("<II")
_STRING = struct.Struct("<I?")
_ALIGN = 64
INLINE_BYTES = 32 * 1024
"""Arrays up to this size travel in the frame."""
MAX_FRAME_BYTES = 1 << 30
MAX_BODY_BYTES = MAX_FRAME_BYTES - (16 << 20)
"""What is left of a frame beside the largest header."""

Header = dict[str, Any]
Tensors = Mapping[str, np.ndarray[Any, Any]]
Blocks = list[Block]
Body = bytes | bytearray


def pack_tensors(tensors: Tensors, arena: Arena | None = None) -> tuple[list[Any], list[bytes], Blocks]:
    """Describe tensors for a header; returns the description, the body's parts, and the arena's blocks used.

    Without an arena all of them travel in the body.

    Raises TooLarge, with nothing left in the arena, when what does not fit there is too much for a frame.
    """
    described: list[Any] = []
    body: list[bytes] = []
    blocks: Blocks = []
    offset = 0
    try:
        for name, array in tensors.items():
            large = array.nbytes > INLINE_BYTES and array.dtype != np.object_
            block = arena.put(array) if arena is not None and large else None
            if block is not None:
                blocks.append(block)
                described.append([name, _dtype(array), array.shape, "arena", block[0]])
                continue
            if offset + array.nbytes > MAX_BODY_BYTES:
                raise _too_large()
            data = _strings(array) if array.dtype == np.object_ else array.tobytes()
            described.append([name, _dtype(array), array.shape, "body", offset, len(data)])
            body += [data, bytes(-len(data) % _ALIGN)]  # each begins aligned, as engines expect of numbers
            offset += len(data) + len(body[-1])
        if offset > MAX_BODY_BYTES:
            raise _too_large()
    except BaseException:
        if arena is not None:
            for block in blocks:
                arena.free(block)
        raise
    return described, body, blocks


def unpack_tensors(described: list[Any], body: Body, arena: ArenaView) -> dict[str, np.ndarray[Any, Any]]:
    """The inverse of `pack_tensors`; arrays are views of the body, or read-only ones of the sender's arena.

    Raises ValueError for a description that names what is not there.
    """
    tensors = {}
    for name, dtype_text, shape, where, offset, *length in described:
        dtype = np.dtype(dtype_text)
        if where == "arena":
            tensors[name] = arena.array(offset, dtype, tuple(shape))
        elif dtype == np.object_:
            tensors[name] = _from_strings(body[offset : offset + length[0]], tuple(shape))
        else:
            count = length[0] // max(1, dtype.itemsize)
            tensors[name] = np.frombuffer(body, dtype, count, offset).reshape(shape)
    return tensors


def all_of(each: Sequence[Tensors]) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of several items under names of their own, to be packed together."""
    return {f"{place} {name}": array for place, tensors in enumerate(each) for name, array in tensors.items()}


def each_of(tensors: Tensors, count: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    """The inverse of `all_of`."""
    each: list[dict[str, np.ndarray[Any, Any]]] = [{} for _ in range(count)]
    for named, array in tensors.items():
        place, _, name = named.partition(" ")
        each[int(place)][name] = array
    return each


def _too_large() -> TooLarge:
    return TooLarge("The tensors are too large to be handed to the model's process; send less at once.")


def _dtype(array: np.ndarray[Any, Any]) -> str:
    # NumPy's short form has no letter for BF16, which is known by its name once `core.signature` is imported.
    text: str = array.dtype.str if array.dtype.kind != "V" else array.dtype.name
    return text


def _strings(array: np.ndarray[Any, Any]) -> bytes:
    parts = []
    for item in array.reshape(-1):
        data = item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogatepass")
        parts.append(_STRING.pack(len(data), isinstance(item, bytes)))
        parts.append(data)
    return b"".join(parts)


def _from_strings(data: Body, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = np.empty(shape, np.object_)
    flat = array.reshape(-1)
    at = 0
    for index in range(array.size):
        length, is_bytes = _STRING.unpack_from(data, at)
        at += _STRING.size
        item = bytes(data[at : at + length])
        flat[index] = item if is_bytes else item.decode("utf-8", "surrogatepass")
        at += length
    return array


class FrameProtocol(asyncio.Protocol):
    """Cuts a stream into frames. `on_frame(header, body)` for each; `on_lost` once, at the end.

    A stream that is not made of frames ends the connection: what comes after cannot be told apart any more.
    """

    def __init__(self, on_frame: Callable[[Header, bytearray], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether what is sent may still arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        """Deliver every frame that is whole."""
        self._buffer += data
        try:
            used = self._deliver()
        except Exception:  # whatever it was, the connection is of no use any more, and its owner goes on
            log.exception("frames.unreadable")
            self._buffer.clear()
            self.close()
            return
        if used:
            del self._buffer[:used]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        self._transport = None
        self._buffer.clear()
        self._on_lost()

    def send(self, header: Header, body: Sequence[bytes] = ()) -> bool:
        """Send a frame; false when the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            return False
        packed = orjson.dumps(header)
        size = sum(map(len, body))
        head = _LENGTHS.pack(len(packed), size) + packed
        if size > INLINE_BYTES:
            self._transport.writelines([head, *body])
        else:
            self._transport.write(b"".join([head, *body]))
        return True

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def _deliver(self) -> int:
        """Call back for each whole frame; how many bytes they took."""
        at = 0
        with memoryview(self._buffer) as view:
            while len(view) - at >= _LENGTHS.size:
                header_size, body_size = _LENGTHS.unpack_from(view, at)
                if header_size + body_size > MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {header_size + body_size} bytes")
                start = at + _LENGTHS.size
                end = start + header_size + body_size
                if len(view) < end:
                    break
                header = orjson.loads(view[start : start + header_size])
                self._on_frame(header, bytearray(view[start + header_size : end]))
                at = end
        return at
