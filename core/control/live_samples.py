"""Keeps samples of live inputs where a deployment asks for it: off the hot path, bounded, dropped when too many.

Only what the model gets is kept, media or tensors; never headers, tokens, addresses or parameters.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import structlog

from core.control.samples import SampleBook
from core.database.repositories.deployments import Deployments
from core.database.repositories.samples import Samples
from core.database.session import Database
from core.database.tables import Model
from core.errors import PlatformError
from core.serving.catalogue import Catalogue
from core.serving.request import InferenceRequest
from core.serving.sampler import Sampler

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 64 << 20
"""Of inputs that wait to be written down."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a deployment asks for."""

    model: Model
    rate: float
    max_count: int


class LiveSamples:
    """`refresh` when deployments change, `run` until cancelled."""

    def __init__(self, database: Database, catalogue: Catalogue, book: SampleBook, *, queue_size: int) -> None:
        self._database = database
        self._catalogue = catalogue
        self._book = book
        self._queue: asyncio.Queue[tuple[Wanted, InferenceRequest, int]] = asyncio.Queue(queue_size)
        self._bytes = 0
        self._wanted: dict[str, Wanted] = {}
        self.dropped = 0

    async def refresh(self) -> None:
        """Take over what the deployments ask for. Raises Unavailable."""
        wanted = {one.model.name: one for one in await self._read()}
        for name in self._wanted.keys() - wanted.keys():
            self._catalogue.sample(name, None)
        for name, one in wanted.items():
            if not _same(self._wanted.get(name), one):
                await self._begin(name, one)
        self._wanted = wanted

    async def run(self) -> None:
        """Write down what was taken aside; what cannot be is left out."""
        while True:
            wanted, request, size_bytes = await self._queue.get()
            try:
                for data in await asyncio.to_thread(_contents, request):
                    await self._book.add_live(wanted.model, data, wanted.max_count)
            except PlatformError as error:
                log.info("sample.left_out", model=wanted.model.name, reason=error.message)
            except Exception as error:
                log.warning("sample.failed", model=wanted.model.name, error=repr(error))
            finally:
                self._bytes -= size_bytes

    async def _read(self) -> list[Wanted]:
        async with self._database.session() as session:
            found = []
            for row in await Deployments(session).desired():
                asked: Mapping[str, Any] | None = row.spec.get("sample_live")
                if row.running and asked:
                    found.append(Wanted(row.model, float(asked["rate"]), int(asked["max_count"])))
            return found

    async def _begin(self, name: str, wanted: Wanted) -> None:
        async with self._database.session() as session:
            seen, _ = await Samples(session).totals(wanted.model.id, "live")
        put = partial(self._put, wanted)
        self._catalogue.sample(name, Sampler(wanted.rate, wanted.max_count, put, seen=seen))

    def _put(self, wanted: Wanted, request: InferenceRequest) -> None:
        if any(payload.image is not None for payload in request.payloads or ()):
            return  # a part of a picture, decoded by a pipeline: there is no file to keep
        size_bytes = _size(request)
        if self._queue.full() or self._bytes + size_bytes > MAX_BYTES:
            self.dropped += 1
            return
        self._bytes += size_bytes
        self._queue.put_nowait((wanted, request, size_bytes))


def _same(one: Wanted | None, other: Wanted) -> bool:
    if one is None:
        return False
    return (one.model.id, one.rate, one.max_count) == (other.model.id, other.rate, other.max_count)


def _size(request: InferenceRequest) -> int:
    if request.payloads is not None:
        return sum(payload.size_bytes for payload in request.payloads)
    return sum(array.nbytes for array in (request.inputs or {}).values())


def _contents(request: InferenceRequest) -> list[bytes]:
    """The media as they were sent, each a sample; tensors together as one .npz."""
    if request.payloads is not None:
        return [payload.data for payload in request.payloads]
    file = io.BytesIO()
    arrays: dict[str, Any] = {
        name: array.astype(np.str_) if array.dtype.kind == "O" else array
        for name, array in (request.inputs or {}).items()
    }
    np.savez(file, **arrays)
    return [file.getvalue()]
