"""Brings one model from what it serves to what is desired: load, warm, swap, drain, close."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil
import structlog

from core.control.desired import DesiredDeployment
from core.engines.heap import passing_blocks, trim_heap
from core.errors import LoadFailed
from core.kill_points import reach
from core.serving.catalogue import Catalogue, Served, Share
from core.serving.deployment import Deployment
from core.serving.idle_model import IdleModel, IdleVersion
from core.signature import Signature

log = structlog.get_logger(__name__)

CONCURRENT_LOADS = 4
LOAD_TIMEOUT_S = 900.0
SPARE_MEMORY = 0.1
"""A version is kept ready for the way back only while this part of the machine's memory is free."""

OnState = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What is known of a version without loading it: its size in the store, and what it may take in memory."""

    size_bytes: int
    guess_bytes: int
    task: str
    modality: str
    signature: Signature

    def as_idle(self, model: str, version: int) -> IdleVersion:
        """What can be told of it while it is not in memory."""
        return IdleVersion(model, version, self.task, self.modality, self.signature)


class Loads(Protocol):
    """Whoever makes deployments."""

    async def load(self, desired: DesiredDeployment, version: int, on_state: Callable[[str], None]) -> Deployment:
        """Load and warm one version, or raise."""

    async def describe(self, desired: DesiredDeployment) -> Mapping[int, VersionFacts]:
        """What is known of the desired versions that there are."""


@dataclass(slots=True)
class LoadedVersion:
    """A version in memory, and the options it was loaded with."""

    deployment: Deployment
    served: Served
    load_key: tuple[Any, ...]
    memory_bytes: int = 0
    """Of the host, as measured; 0 before."""
    gpu_bytes: int | None = None

    def as_idle(self) -> IdleVersion:
        """What stays known of it once it is unloaded."""
        one = self.deployment
        return IdleVersion(one.model, one.version, one.task, one.modality, one.signature)


@dataclass(slots=True)
class LoadedModel:
    """The versions of one model that are in memory, and the desired state that they answer to."""

    versions: dict[int, LoadedVersion] = field(default_factory=dict)
    standby: dict[int, LoadedVersion] = field(default_factory=dict)
    """Those that served before and are kept for the way back."""
    applied: DesiredDeployment | None = None

    def find(self, version: int, load_key: tuple[Any, ...]) -> LoadedVersion | None:
        """A version in memory that was loaded with these options."""
        for held in (self.versions.get(version), self.standby.get(version)):
            if held is not None and held.load_key == load_key:
                return held
        return None

    @property
    def held(self) -> list[LoadedVersion]:
        """All that are in memory."""
        return [*self.versions.values(), *self.standby.values()]

    @property
    def memory_bytes(self) -> int:
        """Of all that is held."""
        return sum(one.memory_bytes for one in self.held)

    def dismiss(self) -> list[LoadedVersion]:
        """Keep nothing on standby any more; returns what is to be closed."""
        leaving, self.standby = list(self.standby.values()), {}
        return leaving


class Rollout:
    """Does what one Apply or Remove asks for: `load`, then `swap`, or `remove`.

    `discard` closes versions in a task that nobody cancels.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        loader: Loads,
        discard: Callable[[Sequence[LoadedVersion]], asyncio.Task[None]],
        *,
        concurrent_loads: int = CONCURRENT_LOADS,
        load_timeout_s: float = LOAD_TIMEOUT_S,
    ) -> None:
        self._catalogue = catalogue
        self._loader = loader
        self._discard = discard
        self._load_timeout_s = load_timeout_s
        self._places = asyncio.Semaphore(concurrent_loads)

    async def load(
        self, desired: DesiredDeployment, loaded: LoadedModel, on_state: OnState
    ) -> dict[int, LoadedVersion]:
        """All desired versions, those not in memory yet loaded one after the other.

        Raises what the loader raises, and LoadFailed for one that does not end, having closed what was opened.
        """
        held: dict[int, LoadedVersion] = {}
        fresh: list[LoadedVersion] = []
        try:
            for version in desired.versions:
                found = loaded.find(version, desired.load_key)
                if found is None:
                    deployment = await self._load(desired, version, on_state)
                    found = LoadedVersion(deployment, Served(deployment), desired.load_key)
                    fresh.append(found)
                held[version] = found
        except BaseException:
            if fresh:
                await asyncio.shield(self._discard(fresh))
            raise
        reach("deploy.loaded")
        return held

    def swap(
        self, desired: DesiredDeployment, loaded: LoadedModel, held: Mapping[int, LoadedVersion]
    ) -> list[LoadedVersion]:
        """Serve the desired versions from now on. Returns all others that are in memory."""
        before = loaded.held
        loaded.versions, loaded.standby, loaded.applied = dict(held), {}, desired
        self._catalogue.swap(
            desired.model,
            [Share(held[share.version].served, share.weight, share.mode) for share in desired.traffic],
        )
        reach("deploy.swapped")
        kept = {id(version) for version in held.values()}
        return [version for version in before if id(version) not in kept]

    def remove(self, model: str, loaded: LoadedModel, idle: IdleModel | None = None) -> list[LoadedVersion]:
        """Take a model out of service, or with `idle` out of memory alone, and return what is to be drained."""
        self._catalogue.swap(model, [], idle)
        leaving = loaded.held
        loaded.versions, loaded.standby, loaded.applied = {}, {}, None
        return leaving

    async def _load(self, desired: DesiredDeployment, version: int, on_state: OnState) -> Deployment:
        async with self._places:
            try:
                async with asyncio.timeout(self._load_timeout_s) as limit:
                    with passing_blocks():
                        return await self._loader.load(desired, version, lambda phase: on_state(version, phase))
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise LoadFailed(f"Version {version} was not loaded within {self._load_timeout_s:g} s.") from error


def idle_model(desired: DesiredDeployment, versions: Sequence[IdleVersion]) -> IdleModel:
    """What answers for a model that is in no memory."""
    return IdleModel(tuple(versions), desired.timeout_ms / 1000, desired.queue_size)


def park(loaded: LoadedModel, leaving: Sequence[LoadedVersion], wanted: Collection[int]) -> list[LoadedVersion]:
    """Keep those of `leaving` that are wanted for the way back, while memory allows; returns the others."""
    memory = psutil.virtual_memory()
    if memory.available < SPARE_MEMORY * memory.total:
        wanted = ()
    going = []
    for version in leaving:
        number = version.deployment.version
        if number in wanted and number not in loaded.versions:
            loaded.standby[number] = version
        else:
            going.append(version)
    return going


async def drain_and_close(leaving: Sequence[LoadedVersion], timeout_s: float) -> None:
    """Wait for the last lease of each, up to the deadline, and close it. One that cannot is logged."""
    await asyncio.gather(*(_drain_one(version, timeout_s) for version in leaving))


async def _drain_one(version: LoadedVersion, timeout_s: float) -> None:
    try:
        await version.served.drained(timeout_s)
        await version.deployment.close()
        await asyncio.to_thread(trim_heap)
    except Exception:
        log.exception("deployment.not_closed", model=version.deployment.model, version=version.deployment.version)
