"""A loader of fake models, a catalogue's targets without engines, and a reconciler on a real SQLite file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.control.actor import SYSTEM
from core.control.deploying import deploy, undeploy
from core.control.desired import DesiredDeployment
from core.control.reconciler import Reconciler
from core.control.rollout import VersionFacts
from core.database.repositories.deployments import Deployments
from core.database.repositories.models import Models
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import DeploymentStatus
from core.engines.base import EngineOptions
from core.engines.fake import FakeEngine
from core.errors import LoadFailed, PlatformError
from core.serving.catalogue import Catalogue
from core.serving.deployment import Deployment, DeploymentOptions
from core.serving.request import InferenceRequest, InferenceResult
from core.serving.runner import LocalRunner, RunnerOptions
from core.settings import InferenceSettings
from core.signature import Signature
from core.tasks.tensor import TensorTask

SPEC = {"dtype": "FP32", "shape": [-1, 3]}
SIGNATURE = {"inputs": [{"name": "x", **SPEC}], "outputs": [{"name": "y", **SPEC}]}
NOWHERE = Path("/nonexistent")


def fake_deployment(
    folder: Path, threads: ThreadPoolExecutor, model: str, version: int, **fields: Any
) -> Deployment:
    """A deployment, not started, of a fake model with these fields; it answers its input times its version."""
    path = folder / f"{model}-{version}.json"
    path.write_text(json.dumps({"signature": SIGNATURE, "latency_ms": 0, "scale": float(version), **fields}))

    def make_engine() -> tuple[FakeEngine, Any]:
        engine = FakeEngine()
        return engine, engine.load(path, EngineOptions())

    return Deployment(
        DeploymentOptions(model, version, 10_000),
        LocalRunner(RunnerOptions(f"{model}-v{version}"), make_engine),
        lambda signature: TensorTask({}, signature, NOWHERE),
        threads,
    )


def request(value: float = 1.0) -> InferenceRequest:
    """One item."""
    return InferenceRequest(inputs={"x": np.full((1, 3), value, np.float32)})


@dataclass
class FakeLoader:
    """Loads fake models; `held` stops loads until it is set, `fields` shape the versions."""

    folder: Path
    threads: ThreadPoolExecutor
    fields: dict[int, dict[str, Any]] = field(default_factory=dict)
    fails: dict[int, Exception] = field(default_factory=dict)
    guesses: dict[int, int] = field(default_factory=dict)
    file_bytes: int = 0
    held: asyncio.Event = field(default_factory=asyncio.Event)
    loads: list[tuple[str, int]] = field(default_factory=list)
    opened: list[Deployment] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def describe(self, desired: DesiredDeployment) -> dict[int, VersionFacts]:
        """See Loads; the guess is what the version's fields say."""
        signature = Signature.from_json(SIGNATURE)
        return {
            version: VersionFacts(self.file_bytes, self.guess(version), "tensor", "tensor", signature)
            for version in desired.versions
        }

    def guess(self, version: int) -> int:
        """What a version is thought to take."""
        return self.guesses.get(version, int(self.fields.get(version, {}).get("memory_bytes", 0)))

    async def load(self, desired: DesiredDeployment, version: int, on_state: Callable[[str], None]) -> Deployment:
        """See Loads."""
        self.loads.append((desired.model, version))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            on_state("loading")
            await self.held.wait()
            if version in self.fails:
                raise self.fails[version]
            fields = self.fields.get(version, {})
            deployment = fake_deployment(self.folder, self.threads, desired.model, version, **fields)
            await deployment.start(on_state)
        finally:
            self.under_way -= 1
        self.opened.append(deployment)
        return deployment

    def open_versions(self) -> list[int]:
        """The versions loaded that have not been closed."""
        return sorted(one.version for one in self.opened if not one._closing)


class House:
    """A reconciler that runs, with what it works on."""

    def __init__(self, database: Database, loader: FakeLoader, **options: Any) -> None:
        self.database = database
        self.loader = loader
        self.catalogue = Catalogue()
        self.reconciler = Reconciler(
            database, self.catalogue, loader, **{"poll_s": 0.2, "drain_s": 5.0, **options}
        )
        self.catalogue.on_want = self.reconciler.want

    async def model(self, name: str, versions: int = 3) -> None:
        """Add a model with so many valid versions."""
        async with self.database.transaction() as session:
            row = await Models(session).add(name, "tensor")
            for number in range(versions):
                added = await Versions(session).add_next(
                    row.id, format="fake", size_bytes=1, sha256=f"{number}", manifest={}
                )
                await Versions(session).finish(added.id, "valid", report=[])

    async def put(self, name: str, *shares: Mapping[str, Any], **wanted: Any) -> int:
        """Desire this traffic; answers the generation."""
        traffic = [{"weight": 1.0, "mode": "live", **share} for share in shares]
        async with self.database.transaction() as session:
            row = await deploy(session, name, {"traffic": traffic, **wanted}, InferenceSettings(), SYSTEM)
        self.reconciler.wake()
        return row.generation

    async def remove(self, name: str) -> int:
        """Desire nothing."""
        async with self.database.transaction() as session:
            row = await undeploy(session, name, SYSTEM)
        self.reconciler.wake()
        return row.generation

    async def status(self, name: str) -> DeploymentStatus | None:
        """What is observed."""
        async with self.database.session() as session:
            model = await Models(session).by_name(name)
            assert model is not None
            rows = await Deployments(session).observed(model.id)
        return rows[0] if rows else None

    async def until(self, what: Callable[[], Any], timeout_s: float = 10) -> Any:
        """Wait until `what`, which may be a coroutine function, answers something true; answers that."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = what()
                found = await found if asyncio.iscoroutine(found) else found
                if found:
                    return found
                await asyncio.sleep(0.005)

    async def rests(self, name: str, generation: int, state: str = "serving") -> DeploymentStatus:
        """What is observed once a generation is in a state."""

        async def look() -> DeploymentStatus | None:
            row = await self.status(name)
            return row if row is not None and (row.generation, row.state) == (generation, state) else None

        found: DeploymentStatus = await self.until(look)
        return found

    async def infer(self, name: str, value: float = 1.0, **options: Any) -> InferenceResult:
        """Call a model."""
        async with self.catalogue.lease(name, **options) as target:
            return await target.infer(request(value))

    async def infer_many(self, name: str, count: int, value: float = 1.0) -> list[PlatformError]:
        """Call a model so often, one call after the other; answers the errors."""
        failed = []
        for _ in range(count):
            try:
                await self.infer(name, value)
            except PlatformError as error:
                failed.append(error)
        return failed


@asynccontextmanager
async def running_house(url: str, folder: Path, **options: Any) -> AsyncIterator[House]:
    """A House whose reconciler runs until the block ends; then nothing may be left open."""
    database = Database(url)
    with ThreadPoolExecutor(2) as threads:
        loader = FakeLoader(folder, threads)
        loader.held.set()
        house = House(database, loader, **options)
        loop = asyncio.create_task(house.reconciler.run(), name="reconciler")
        try:
            yield house
            assert not loop.done(), "the reconciler died"
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await house.reconciler.close()
            await database.close()
        assert loader.open_versions() == []


def broken() -> LoadFailed:
    """What a loader raises for a file that is none."""
    return LoadFailed("The file is not a model.")
