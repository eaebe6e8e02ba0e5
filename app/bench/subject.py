"""What is measured: one version of one model, deployed as it would be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.artifact_choice import Choice, choose
from core.control.deploying import find_model
from core.control.desired import DesiredDeployment, desired_from_row
from core.control.optimising import recommended_for
from core.database.repositories.deployments import Deployments
from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.optimisations import Optimisations
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import Deployment, DerivedArtifact, Model, Optimisation, Version
from core.engines.registry import engine_class, engines_for
from core.errors import Conflict, LoadFailed, NotFound
from core.settings import InferenceSettings
from core.store.artifacts import ArtifactStore
from core.store.manifest import Manifest, manifest_from_json

QUEUE_SIZE = 4096
"""At least so much room, so that what is measured is not how fast calls are refused."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A version with its files, and how it is deployed; `spec` is that as a deployment's row has it.

    `choice` is what would be loaded; where a search recommended it, that is here with what it was converted to.
    """

    model: Model
    version: Version
    manifest: Manifest
    root: Path
    spec: dict[str, Any]
    choice: Choice
    optimisation: Optimisation | None = None
    derived: DerivedArtifact | None = None

    @property
    def desired(self) -> DesiredDeployment:
        """What the loader is asked for."""
        return desired_from_row(self.model.id, self.model.name, 1, True, self.spec)

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.choice.device or self.desired.device

    @property
    def form(self) -> str:
        """For people: in which precision and why, or why only as it was uploaded."""
        if self.choice.optimisation is None:
            return f"as uploaded ({self.choice.note})" if self.choice.note else "as uploaded"
        after = f" ({self.derived.conversion})" if self.derived is not None else ""
        return f"in {self.choice.precision}{after}, as search {self.choice.optimisation} recommends"


async def find_subject(
    database: Database,
    store: ArtifactStore,
    defaults: InferenceSettings,
    name: str,
    version: int | None,
    engine: str | None,
) -> Subject:
    """The version asked for, or the newest valid one, as its deployment says; undeployed, with the defaults.

    Raises NotFound, Conflict for a version that is not valid, LoadFailed for an engine that cannot run it.
    """
    async with database.session() as session:
        model = await find_model(session, name)
        row = _chosen(name, await Versions(session).list(model.id), version)
        deployed = next((d for d in await Deployments(session).desired() if d.model_id == model.id), None)
        if not store.exists(row.sha256):
            raise LoadFailed(f"The files of version {row.version} are missing from the store; upload them again.")
        manifest = manifest_from_json(row.manifest)
        spec = _spec(dict(deployed.spec) if deployed is not None else {}, row, manifest, defaults, engine)
        spec["optimised"] = await _optimised(session, deployed, spec, row)
        desired = desired_from_row(model.id, model.name, 1, True, spec)
        uploaded = store.path(row.sha256) / (manifest.model or "model.onnx")
        choice = await choose(session, store, desired, row.version, row.format, uploaded)
        search = await Optimisations(session).get(choice.optimisation) if choice.optimisation else None
        derived = await _derived(session, search)
    return Subject(model, row, manifest, store.path(row.sha256), spec, choice, search, derived)


async def _optimised(
    session: AsyncSession, deployed: Deployment | None, spec: Mapping[str, Any], row: Version
) -> dict[str, int]:
    """The search that the deployment follows; for a version that it does not serve, the one that it would."""
    if spec["engine"] != "auto":
        return {}
    now = deployed.spec if deployed is not None and deployed.running else {}
    serves = any(int(share["version"]) == row.version for share in now.get("traffic", ()))
    if not serves or now.get("engine", "auto") != "auto":
        return await recommended_for(session, row.model_id, spec["traffic"])
    followed = (now.get("optimised") or {}).get(str(row.version))
    return {str(row.version): followed} if followed is not None else {}


async def _derived(session: AsyncSession, search: Optimisation | None) -> DerivedArtifact | None:
    artifact_id = (search.recommendation or {})["use"]["artifact_id"] if search is not None else None
    return await DerivedArtifacts(session).get(int(artifact_id)) if artifact_id is not None else None


def _chosen(name: str, rows: Any, wanted: int | None) -> Version:
    if wanted is None:
        row = next((row for row in rows if row.status == "valid"), None)
        if row is None:
            raise NotFound(f"The model {name} has no valid version.")
    else:
        row = next((row for row in rows if row.version == wanted), None)
        if row is None:
            raise NotFound(f"The model {name} has no version {wanted}.")
        if row.status != "valid":
            raise Conflict(f"Version {wanted} of {name} is {row.status}, and only a valid one can be measured.")
    chosen: Version = row
    return chosen


def _spec(
    deployed: dict[str, Any], row: Version, manifest: Manifest, defaults: InferenceSettings, engine: str | None
) -> dict[str, Any]:
    hints = manifest.batching
    spec = {
        "max_batch": hints.max_batch or defaults.max_batch,
        "max_delay_ms": hints.max_delay_ms or 0.0,
        "timeout_ms": defaults.timeout_ms,
        **{key: value for key, value in deployed.items() if value is not None},
    }
    spec["traffic"] = [{"version": row.version, "weight": 1.0, "mode": "live"}]
    spec["engine"] = _engine(engine or spec.get("engine", "auto"), row.format)
    spec["queue_size"] = max(QUEUE_SIZE, spec.get("queue_size") or 0)
    for key in ("watch", "idle_unload_s", "sample_live"):  # it stays in memory, and no input is kept
        spec.pop(key, None)
    return spec


def _engine(wanted: str, format_: str) -> str:
    able = engines_for(format_)
    if wanted == "auto" and able:
        return wanted
    if wanted != "auto":
        engine_class(wanted)  # says which there are, or what to install
    if wanted not in able:
        raise LoadFailed(f"Engine {wanted} does not run {format_} models; these do: {', '.join(able) or 'none'}.")
    return wanted
