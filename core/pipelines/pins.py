"""The models of one request: each leased once, so that its version stays the same and open until the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from core.errors import DeadlineExceeded, NoRoom, NotReady, PlatformError, QueueFull
from core.serving.catalogue import Catalogue, Lease
from core.serving.target import Target

Wanted = tuple[str, int | None]


class Pins:
    """`async with Pins(…) as pins`, then `await pins.target(model, version)` as often as needed.

    What is in memory is leased at once; what is idle when it is first asked for, which waits for its load until
    `deadline` (`time.monotonic()`).
    """

    def __init__(self, catalogue: Catalogue, wanted: Iterable[Wanted], deadline: float) -> None:
        self._catalogue = catalogue
        self._deadline = deadline
        self._wanted = tuple(wanted)
        self._leases: dict[Wanted, Lease] = {}
        self._loads: dict[Wanted, asyncio.Task[Lease]] = {}

    async def __aenter__(self) -> Self:
        for wanted in self._wanted:
            try:
                lease = self._catalogue.lease(*wanted)
            except PlatformError:
                continue  # told by the node that needs it, if it is reached
            if isinstance(lease, Lease):
                self._leases[wanted] = lease
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for load in self._loads.values():
            load.cancel()
        done = await asyncio.gather(*self._loads.values(), return_exceptions=True)
        for lease in [*self._leases.values(), *(one for one in done if isinstance(one, Lease))]:
            lease.release()

    async def target(self, model: str, version: int | None) -> Target:
        """Who answers for a model in this request.

        Raises NotReady, NoRoom, QueueFull or DeadlineExceeded in words that do not name the model: the caller may
        be allowed the pipeline alone.
        """
        wanted = model, version
        lease = self._leases.get(wanted)
        if lease is None:
            lease = await self._load(wanted)
        return lease.target

    async def _load(self, wanted: Wanted) -> Lease:
        """One load, however many nodes ask; it ends with the request, not with the first of them that leaves."""
        task = self._loads.get(wanted)
        if task is None:
            work = self._catalogue.wake(*wanted, None, self._deadline)
            task = self._loads[wanted] = asyncio.create_task(work, name=f"pipeline waits for {wanted[0]}")
        try:
            return await asyncio.shield(task)
        except NoRoom as error:
            raise NoRoom("its model has no room in memory now.", retry_after_s=error.retry_after_s) from error
        except QueueFull as error:
            raise QueueFull("too many wait for its model's load.", retry_after_s=error.retry_after_s) from error
        except DeadlineExceeded as error:
            raise DeadlineExceeded("the deadline passed while its model was being loaded.") from error
        except PlatformError as error:
            raise NotReady("its model is not in service now.", retry_after_s=error.retry_after_s or 5) from error
