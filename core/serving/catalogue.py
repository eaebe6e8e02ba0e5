"""The names that can be called, and who answers for each: leases and atomic swaps."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from types import TracebackType
from typing import Any, ClassVar

from core.errors import ModelNotFound, NotReady, PlatformError
from core.serving.deployment import Deployment
from core.serving.idle_model import IdleModel, WaitingRoom
from core.serving.sampler import Sampler
from core.serving.shadow import Mirror
from core.serving.target import Target
from core.serving.version_health import Snapshot
from core.serving.waking_lease import WakingLease


class Served:
    """A target that is in the catalogue, or was: counts the leases out on it."""

    __slots__ = ("_drained", "elsewhere", "last_used", "leases", "mirror", "retired", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.elsewhere: Callable[[float], Awaitable[bool]] | None = None
        """Waits until other processes have let go of it too."""
        self.leases = 0
        self.last_used = time.monotonic()
        """When a lease last ended, or when it was made."""
        self.retired = False
        self.mirror: Mirror | None = None
        """What sends copies here, while it is a shadow."""
        self._drained: asyncio.Event | None = None

    def release(self) -> None:
        """One lease ends."""
        self.leases -= 1
        self.last_used = time.monotonic()
        if self.leases == 0 and self._drained is not None:
            self._drained.set()

    async def drained(self, timeout_s: float) -> bool:
        """Wait until the last lease has ended, here and elsewhere; false when the time is up first."""
        if self.elsewhere is not None and not await self.elsewhere(timeout_s):
            return False
        try:
            async with asyncio.timeout(timeout_s):
                while self.leases:
                    if self._drained is None or self._drained.is_set():
                        self._drained = asyncio.Event()
                    await self._drained.wait()
        except TimeoutError:
            return False
        return True

    def shadow(self, fraction: float) -> Mirror:
        """Be a shadow, of this part of the live requests."""
        if self.mirror is None:
            self.mirror = Mirror(self)
        self.mirror.fraction = fraction
        return self.mirror

    def copy_to(self, mirrors: Sequence[Mirror]) -> None:
        """Copy what is answered here to these from now on."""
        if isinstance(self.target, Deployment):
            self.target.mirrors = mirrors

    def sample_to(self, sampler: Sampler | None) -> None:
        """Let inputs that are answered here be taken aside, or no more."""
        if isinstance(self.target, Deployment):
            self.target.sampler = sampler

    def stop_shadow(self) -> None:
        """Be no shadow any more; copies under way are cancelled."""
        if self.mirror is not None:
            self.mirror.close()
            self.mirror = None

    def snapshot(self) -> dict[str, Any]:
        """Its counters; None for a target that keeps none."""
        counters: dict[str, Any] = self.target.health.snapshot() if isinstance(self.target, Deployment) else {}
        if self.mirror is not None:
            counters["shadow"] = self.mirror.snapshot()
        return counters


class Lease:
    """`async with catalogue.lease(name) as target`: the target stays open until the block ends."""

    __slots__ = ("_served",)
    deadline: ClassVar[float | None] = None
    waited_ms: ClassVar[float] = 0.0
    """See WakingLease."""

    def __init__(self, served: Served) -> None:
        self._served = served
        served.leases += 1

    @property
    def target(self) -> Target:
        """What was leased."""
        return self._served.target

    def release(self) -> None:
        """End the lease."""
        self._served.release()

    async def __aenter__(self) -> Target:
        return self._served.target

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._served.release()


@dataclass(frozen=True, slots=True)
class Share:
    """One version's part of the traffic of a name; `mode` is live or shadow."""

    served: Served
    weight: float = 1.0
    mode: str = "live"


class Entry:
    """Who answers for one name: versions with their shares. Never changed, only replaced.

    Without a key, requests are dealt out by smooth weighted round-robin: after any number of them each version is
    within one request of its share. With a key, by weighted rendezvous hashing: a key keeps its version while the
    weights stay, and when they change only as many keys move as must.
    """

    __slots__ = ("_by_version", "_owed", "_served", "_total", "_weights", "shares")

    def __init__(self, shares: Sequence[Share]) -> None:
        self.shares = tuple(shares)
        live = [share for share in shares if share.mode == "live"]
        self._served = [share.served for share in live]
        self._weights = [share.weight for share in live]
        self._total = sum(self._weights)
        self._owed = [0.0] * len(live)
        self._by_version = {served.target.version: served for served in self._served}

    def pick(self, version: int | None, key: bytes | None = None) -> Served | None:
        """The served of this version, or where none is asked for, one by weight: the key's, or the next."""
        if version is not None:
            return self._by_version.get(version)
        if len(self._served) == 1:
            return self._served[0]
        if not self._served:
            return None
        return self._next() if key is None else self._sticky(key)

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    def _next(self) -> Served:
        """The one that is owed most; as in Nginx' `ngx_http_upstream_round_robin.c`."""
        owed, best = self._owed, 0
        for i, weight in enumerate(self._weights):
            owed[i] += weight
            if owed[i] > owed[best]:
                best = i
        owed[best] -= self._total
        return self._served[best]

    def _sticky(self, key: bytes) -> Served:
        places = range(len(self._served))
        best = max(places, key=lambda i: _score(key, self._served[i].target, self._weights[i]))
        return self._served[best]


def _score(key: bytes, target: Target, weight: float) -> float:
    """Weighted rendezvous hashing: the highest of -weight / ln(uniform) wins as often as its weight says."""
    text = f"{target.model}/{target.version}/".encode() + key
    number = int.from_bytes(blake2b(text, digest_size=8).digest()) >> 12
    return -weight / math.log((number + 0.5) / (1 << 52))


def no_such_model(name: str) -> ModelNotFound:
    """The one error for a model that is unknown, not in service or not the caller's: nothing tells these apart."""
    return ModelNotFound(f"There is no model {name[:64]!r} in service that this token may call.")


class Catalogue:
    """Name -> Entry. All calls are made on the event loop, so a swap is one assignment."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._samplers: dict[str, Sampler] = {}
        self._idle: dict[str, IdleModel] = {}
        self._waiting = WaitingRoom(lambda name: self.on_want(name))
        self.swaps: Counter[str] = Counter()
        """How often it was changed who answers for each name."""
        self.expected: Mapping[str, Container[int]] | None = None
        """The versions that should answer for each name, as whoever loads them says; None until that is known."""
        self.expected_too: Mapping[str, Container[int]] = {}
        """The same of what needs no loading: pipelines."""
        self.on_swap: Callable[[str, Sequence[Share], IdleModel | None], None] | None = None
        """Called after each swap, with who answers from now on."""
        self.on_want: Callable[[str], None] = lambda name: None
        """Called when an idle model is called: it must end in a `swap` or a `refuse` of that name."""
        self.on_refuse: Callable[[str, PlatformError], None] | None = None
        """Called after each refusal."""

    def lease(self, name: str, version: int | None = None, key: bytes | None = None) -> Lease | WakingLease:
        """Take hold of a target: this version's, or the key's, or the next by weight.

        Raises ModelNotFound, or NotReady for what should answer and does not yet. What is idle is waited for when
        the lease is entered.
        """
        entry = self._entries.get(name)
        served = entry.pick(version, key) if entry is not None else None
        if served is None:
            idle = self._idle.get(name)
            if idle is not None and idle.has(version):
                return WakingLease(self, name, version, key, idle.timeout_s)
            raise self.why_not(name, version)
        return Lease(served)

    async def wake(self, name: str, version: int | None, key: bytes | None, deadline: float) -> Lease:
        """Wait until an idle model is loaded. Raises as `lease` and WaitingRoom.wait do."""
        while True:
            entry = self._entries.get(name)
            served = entry.pick(version, key) if entry is not None else None
            if served is not None:
                return Lease(served)
            idle = self._idle.get(name)
            if idle is None or not idle.has(version):
                raise self.why_not(name, version)
            await self._waiting.wait(name, idle.capacity, deadline)

    def why_not(self, name: str, version: int | None = None) -> ModelNotFound | NotReady:
        """The error for a name, or a version of it, that does not answer."""
        if self.expected is None:
            return NotReady("The server has only just started; try again shortly.", retry_after_s=1)
        live = [target.version for target in self.callable_targets(name)]
        wanted = self.expected.get(name, self.expected_too.get(name))
        if wanted is None and not live:
            return no_such_model(name)
        if version is None:
            return NotReady(f"The model {name!r} is not ready yet; try again shortly.", retry_after_s=1)
        what = f"Version {version} of model {name!r} is not"
        if wanted is not None and version in wanted:
            return NotReady(f"{what} ready yet; try again shortly.", retry_after_s=1)
        others = f"; ask for {' or '.join(map(str, sorted(live)))}, or for none" if live else ""
        return ModelNotFound(f"{what} in service{others}.")

    def only(self, name: str) -> Served | None:
        """The one version that answers for a name; None where there is none, or a choice to be made."""
        entry = self._entries.get(name)
        return entry.pick(None) if entry is not None and len(entry) == 1 else None

    def swap(self, name: str, shares: Sequence[Share], idle: IdleModel | None = None) -> list[Served]:
        """Let `shares` answer from now on; nobody, when it is empty. Returns those that no longer do.

        With `idle` and no shares the name stays one that can be called: that asks for its load.
        """
        old = self._entries.get(name)
        if shares:
            self._entries[name] = Entry(shares)
        else:
            self._entries.pop(name, None)
        kept = {id(share.served) for share in shares}
        retired = [
            share.served for share in (old.shares if old is not None else ()) if id(share.served) not in kept
        ]
        _connect(shares, retired)
        self._connect_sampler(name)
        self.swaps[name] += 1
        if self.on_swap is not None:
            self.on_swap(name, shares, idle)
        self._settle_idle(name, shares, idle)
        return retired

    def sample(self, name: str, sampler: Sampler | None) -> None:
        """Let the inputs of a name be taken aside from now on, whichever versions answer, or no more."""
        if sampler is None:
            self._samplers.pop(name, None)
        else:
            self._samplers[name] = sampler
        self._connect_sampler(name)

    def _connect_sampler(self, name: str) -> None:
        entry = self._entries.get(name)
        for share in entry.shares if entry is not None else ():
            share.served.sample_to(self._samplers.get(name) if share.mode == "live" else None)

    def refuse(self, name: str, error: PlatformError) -> None:
        """Answer all who wait for an idle model's load with this."""
        self._waiting.end(name, error)
        if self.on_refuse is not None:
            self.on_refuse(name, error)

    def _settle_idle(self, name: str, shares: Sequence[Share], idle: IdleModel | None) -> None:
        if idle is not None and not shares:
            self._idle[name] = idle
            self._waiting.ask_again(name)
            return
        self._idle.pop(name, None)
        self._waiting.end(name)  # who waited looks again, and finds it or is told why not

    def splits(self, name: str) -> bool:
        """Whether several versions answer for a name, so that a key makes a difference."""
        entry = self._entries.get(name)
        if entry is not None:
            return len(entry) > 1
        idle = self._idle.get(name)
        return idle is not None and len(idle.versions) > 1

    def snapshot(self, name: str) -> Snapshot:
        """The counters of every version of one name that gets requests or copies of them, as plain dicts."""
        entry = self._entries.get(name)
        shares = entry.shares if entry is not None else ()
        return {str(share.served.target.version): share.served.snapshot() for share in shares}

    def usage(self, name: str) -> tuple[float, bool]:
        """When a name was last used, in seconds of `time.monotonic()`, and whether it is now."""
        entry = self._entries.get(name)
        served = list(entry) if entry is not None else []
        return max((one.last_used for one in served), default=0.0), any(one.leases for one in served)

    def serving(self, name: str) -> list[Served]:
        """The live versions of one name; empty when it is not in service."""
        return list(self._entries.get(name, ()))

    def is_idle(self, name: str) -> bool:
        """Whether a name can be called, and its model must be loaded for that first."""
        return name in self._idle

    def has(self, name: str) -> bool:
        """Whether a name can be called."""
        return bool(self._entries.get(name)) or name in self._idle

    def callable_targets(self, name: str) -> list[Target]:
        """The live versions of one name, or while it is idle, what is known of them."""
        if name in self._idle:
            return list(self._idle[name].versions)
        return [served.target for served in self._entries.get(name, ())]

    def targets(self) -> Mapping[str, Iterable[Target]]:
        """Every name with its live targets in memory."""
        return {name: [served.target for served in entry] for name, entry in self._entries.items()}

    def idle(self) -> Mapping[str, Sequence[Target]]:
        """Every idle name, with what is known of its live versions."""
        return {name: idle.versions for name, idle in self._idle.items()}


def _connect(shares: Sequence[Share], retired: Sequence[Served]) -> None:
    """Let live versions copy to the shadows, and nobody else to nobody else."""
    mirrors = tuple(share.served.shadow(min(1.0, share.weight)) for share in shares if share.mode == "shadow")
    for share in shares:
        share.served.retired = False
        share.served.copy_to(mirrors if share.mode == "live" else ())
        if share.mode == "live":
            share.served.stop_shadow()
    for served in retired:
        served.retired = True
        served.copy_to(())
        served.stop_shadow()
