"""A model whose search has ended: a version that doubles, and a form of it that triples, to tell them apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from core.control.actor import SYSTEM
from core.control.deploying import deploy
from core.control.loader import Loader
from core.control.reconciler import Reconciler
from core.database.repositories import DerivedArtifacts, Models, Versions
from core.database.repositories.deployments import Deployments
from core.database.session import Database
from core.database.tables import DeploymentStatus, DerivedArtifact, Model, Optimisation, Version, utc_now
from core.optimiser.machine import fingerprint
from core.serving.catalogue import Catalogue
from core.serving.request import InferenceRequest
from core.settings import InferenceSettings
from core.store.artifacts import ArtifactStore
from tests.acceptance import onnx_models

UPLOADED, DERIVED = 2.0, 3.0
NAME = "scale"
_SPEC = {"dtype": "FP32", "shape": [-1, 4]}
SIGNATURE = {"inputs": [{"name": "x", **_SPEC}], "outputs": [{"name": "y", **_SPEC}]}


class Recommended:
    """The rows and files of one model; `reconciler` serves what is desired of it."""

    def __init__(self, database: Database, folder: Path, threads: ThreadPoolExecutor) -> None:
        self.database = database
        self.store = ArtifactStore(folder / "artifacts", max_bytes=1 << 30, min_free_bytes=0)
        self.catalogue = Catalogue()
        self.loader = Loader(database, self.store, threads, folder)
        self.reconciler = Reconciler(database, self.catalogue, self.loader, poll_s=0.2, drain_s=5.0)
        self.catalogue.on_want = self.reconciler.want
        self.model: Model
        self.version: Version
        self.derived: DerivedArtifact

    async def publish(self, data: bytes, number: int) -> str:
        """A file `model.onnx` at an address of its own."""
        staged, sha256 = self.store.stage(), f"{number:064x}"
        (staged / "model.onnx").write_bytes(data)
        await self.store.publish(staged, sha256)
        return sha256

    async def fill(self) -> None:
        """The model, its valid version, and the derived form."""
        sha256 = await self.publish(onnx_models.scale(UPLOADED), 1)
        async with self.database.transaction() as session:
            self.model = await Models(session).add(NAME, "tensor")
            self.version = await Versions(session).add_next(
                self.model.id, format="onnx", size_bytes=1, sha256=sha256, manifest={"model": "model.onnx"}
            )
            await Versions(session).finish(self.version.id, "valid", report=[], signature=SIGNATURE)
        self.derived = await self.add_derived("int8-static", 2, DERIVED)

    async def add_derived(self, conversion: str, number: int, factor: float, data: bytes = b"") -> DerivedArtifact:
        """A form of the version that multiplies by the factor, or that is this file."""
        sha256 = await self.publish(data or onnx_models.scale(factor), number)
        async with self.database.transaction() as session:
            row, _ = await DerivedArtifacts(session).put(
                self.version.id,
                f"{number}",
                conversion=conversion,
                sha256=sha256,
                model="model.onnx",
                format="onnx",
                size_bytes=1,
                recipe={},
                made_by="test",
            )
        return row

    async def search(self, derived: DerivedArtifact | None = None, **values: Any) -> int:
        """A search that has ended and recommends that form, or the one there is; `values` are of its row."""
        row = derived or self.derived
        use = {
            "engine": "onnx",
            "conversion": row.conversion,
            "precision": "int8",
            "device": "cpu",
            "extra": {},
            "threads": 1,
            "artifact_id": row.id,
            **values.pop("use", {}),
        }
        wanted = {"objective": "latency", "apply": True, **values.pop("wanted", {})}
        found = {"trial": 2, "gain": 2.0, "reasons": [], "use": use}
        async with self.database.transaction() as session:
            search = Optimisation(
                version_id=self.version.id,
                status="done",
                wanted=wanted,
                recommendation=found,
                machine=dict(fingerprint()),
                ended_at=utc_now(),
            )
            for name, value in values.items():
                setattr(search, name, value)
            session.add(search)
            await session.flush()
            return search.id

    async def deploy(self, **wanted: Any) -> int:
        """Desire version 1; answers the generation."""
        traffic = [{"version": 1, "weight": 1.0, "mode": "live"}]
        async with self.database.transaction() as session:
            body = {"traffic": traffic, **wanted}
            row = await deploy(session, NAME, body, InferenceSettings(), SYSTEM)
        self.reconciler.wake()
        return row.generation

    async def spec(self) -> Mapping[str, Any]:
        """What is desired."""
        async with self.database.session() as session:
            row = await Deployments(session).get(self.model.id)
            assert row is not None
            return row.spec

    async def rests(self, generation: int, state: str = "serving") -> DeploymentStatus:
        """What is observed once that generation is in the state."""
        async with asyncio.timeout(20):
            while True:
                async with self.database.session() as session:
                    rows = await Deployments(session).observed(self.model.id)
                if rows and (rows[0].generation, rows[0].state) == (generation, state):
                    return rows[0]
                await asyncio.sleep(0.01)

    async def factor(self) -> float:
        """By how much what serves multiplies."""
        return await self.answer(1.0)

    async def answer(self, value: float) -> float:
        """What it answers to this number. Raises what the request raises."""
        async with self.catalogue.lease(NAME) as target:
            result = await target.infer(InferenceRequest(inputs={"x": np.full((1, 4), value, np.float32)}))
        assert result.outputs is not None
        return float(result.outputs["y"][0, 0])


@asynccontextmanager
async def recommended(database: Database, folder: Path) -> AsyncIterator[Recommended]:
    """One, filled, whose reconciler runs until the block ends."""
    with ThreadPoolExecutor(2) as threads:
        house = Recommended(database, folder, threads)
        await house.fill()
        loop = asyncio.create_task(house.reconciler.run(), name="reconciler")
        try:
            yield house
            assert not loop.done(), "the reconciler died"
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await house.reconciler.close()
