"""What is measured: one version of one model, deployed as it would be served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.control.deploying import find_model
from core.control.desired import DesiredDeployment, desired_from_row
from core.database.repositories.deployments import Deployments
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import Model, Version
from core.engines.registry import engine_class, engines_for
from core.errors import Conflict, LoadFailed, NotFound
from core.settings import InferenceSettings
from core.store.artifacts import ArtifactStore
from core.store.manifest import Manifest, manifest_from_json

QUEUE_SIZE = 4096
"""At least so much room, so that what is measured is not how fast calls are refused."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A version with its files, and how it is deployed; `spec` is that as a deployment's row has it."""

    model: Model
    version: Version
    manifest: Manifest
    root: Path
    spec: dict[str, Any]

    @property
    def desired(self) -> DesiredDeployment:
        """What the loader is asked for."""
        return desired_from_row(self.model.id, self.model.name, 1, True, self.spec)

    @property
    def artifact(self) -> Path:
        """The model's file."""
        return self.root / (self.manifest.model or "model.onnx")


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
        spec = dict(deployed.spec) if deployed is not None else {}
    if not store.exists(row.sha256):
        raise LoadFailed(f"The files of version {row.version} are missing from the store; upload them again.")
    manifest = manifest_from_json(row.manifest)
    return Subject(model, row, manifest, store.path(row.sha256), _spec(spec, row, manifest, defaults, engine))


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
        return able[0]
    if wanted != "auto":
        engine_class(wanted)  # says which there are, or what to install
    if wanted not in able:
        raise LoadFailed(f"Engine {wanted} does not run {format_} models; these do: {', '.join(able) or 'none'}.")
    return wanted
