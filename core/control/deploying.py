"""Changes of what is desired: deploy, roll back, undeploy. Each writes rows; the reconciler does the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import SYSTEM, Actor
from core.control.desired import DesiredDeployment
from core.control.engine_choice import check_engine
from core.control.optimising import recommended_for
from core.database.repositories.deployments import Deployments
from core.database.repositories.models import Models
from core.database.repositories.versions import Versions
from core.database.tables import Deployment, Model, Version
from core.errors import Conflict, ModelNotFound, NotFound
from core.settings import InferenceSettings


async def find_model(session: AsyncSession, name: str) -> Model:
    """The model of that name. Raises ModelNotFound."""
    model = await Models(session).by_name(name)
    if model is None:
        raise ModelNotFound(f"There is no model {name[:64]!r}.")
    return model


async def find_version(session: AsyncSession, name: str, number: int) -> Version:
    """That version of the model of that name. Raises ModelNotFound."""
    version = await Versions(session).get((await find_model(session, name)).id, number)
    if version is None:
        raise ModelNotFound(f"The model {name} has no version {number}.")
    return version


async def deploy(
    session: AsyncSession, name: str, wanted: Mapping[str, Any], defaults: InferenceSettings, actor: Actor
) -> Deployment:
    """Desire what `wanted` (the body of `PUT …/deployment`) says, with defaults filled in.

    What it chooses of the engine's options is looked at before, by `engine_choice.check_choices`: a library that
    is imported for that must not hold up other writers. Raises ModelNotFound, NotFound for a version, Conflict for
    one that is not valid, Unprocessable for an engine.
    """
    model = await find_model(session, name)
    spec = {key: value for key, value in wanted.items() if key not in ("version", "traffic")}
    spec["traffic"] = wanted.get("traffic") or [{"version": wanted["version"], "weight": 1.0, "mode": "live"}]
    engine = str(spec.get("engine", "auto"))
    await _check_versions(session, model, spec["traffic"], engine)
    hints = await _batching_hints(session, model, spec["traffic"])
    for key in ("max_batch", "max_delay_ms", "queue_size", "timeout_ms"):
        if spec.get(key) is None:
            spec[key] = hints.get(key, getattr(defaults, key, 0))
    if spec.get("max_tokens") is None and "max_tokens" in hints:
        spec["max_tokens"] = hints["max_tokens"]
    if engine == "auto":
        spec["optimised"] = await recommended_for(session, model.id, spec["traffic"])
    there = await Deployments(session).get(model.id)
    before = {"generation": there.generation, "running": there.running, **there.spec} if there else None
    row = await Deployments(session).put(model.id, spec, actor.name)
    await actor.note(session, "deployment.put", name, {"generation": row.generation, **spec, "before": before})
    return row


async def roll_back(session: AsyncSession, name: str, actor: Actor) -> Deployment:
    """Desire again what ran before with other traffic. Raises Conflict where there is nothing before."""
    model = await find_model(session, name)
    before = await Deployments(session).previous(model.id)
    if before is None:
        raise Conflict(f"The model {name} has no earlier deployment to go back to.")
    engine = str(before.spec.get("engine", "auto"))
    await _check_versions(session, model, before.spec["traffic"], engine)
    spec = {key: value for key, value in before.spec.items() if key != "rolled_back"}
    row = await Deployments(session).put(model.id, spec, actor.name)
    await actor.note(
        session, "deployment.rollback", name, {"generation": row.generation, "to_generation": before.generation}
    )
    return row


async def roll_back_itself(
    session: AsyncSession, failing: DesiredDeployment, before: DesiredDeployment, reason: str
) -> Deployment | None:
    """Desire `before` again because `failing` does badly; None where something newer is desired already.

    Raises NotFound or Conflict where a version of `before` can no longer be served.
    """
    await Models(session).lock(failing.model_id)
    now = await Deployments(session).get(failing.model_id)
    if now is None or not now.running or now.generation != failing.generation:
        return None
    model = await find_model(session, failing.model)
    await _check_versions(session, model, before.spec["traffic"], before.engine)
    row = await Deployments(session).put(model.id, {**before.spec, "rolled_back": reason}, SYSTEM.name)
    detail = {"generation": row.generation, "to_generation": before.generation, "reason": reason}
    await SYSTEM.note(session, "deployment.rollback", failing.model, detail)
    return row


async def undeploy(session: AsyncSession, name: str, actor: Actor) -> Deployment:
    """Desire nothing. Raises NotFound where nothing is deployed."""
    model = await find_model(session, name)
    row = await Deployments(session).undeploy(model.id, actor.name)
    if row is None:
        raise NotFound(f"The model {name} is not deployed.")
    await actor.note(session, "deployment.delete", name, {"generation": row.generation})
    return row


async def _batching_hints(
    session: AsyncSession, model: Model, traffic: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the manifests say of batching; where versions differ, the smaller number is safe for all."""
    hints: dict[str, Any] = {}
    for share in traffic:
        row = await Versions(session).get(model.id, int(share["version"]))
        said: Mapping[str, Any] = row.manifest.get("batching", {}) if row is not None else {}
        for key in ("max_batch", "max_delay_ms", "max_tokens"):
            if said.get(key) is not None:
                hints[key] = min(said[key], hints.get(key, said[key]))
    return hints


async def _check_versions(
    session: AsyncSession, model: Model, traffic: Sequence[Mapping[str, Any]], engine: str
) -> None:
    for share in traffic:
        row = await Versions(session).get(model.id, int(share["version"]))
        if row is None:
            raise NotFound(f"The model {model.name} has no version {share['version']}.")
        if row.status != "valid":
            raise Conflict(
                f"Version {row.version} of {model.name} is {row.status}; only a valid version can be deployed."
            )
        check_engine(engine, row.format)
