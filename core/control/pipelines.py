"""Changes of pipelines: check, add, deploy, undeploy, remove. Each writes rows, which every process follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor
from core.database.repositories.deployments import Deployments
from core.database.repositories.models import Models
from core.database.repositories.pipelines import Pipelines
from core.database.repositories.versions import Versions
from core.database.tables import Model, Pipeline, PipelineDeployment, PipelineVersion, Version
from core.errors import NotFound
from core.pipelines.definition import parse
from core.pipelines.plan import Plan
from core.pipelines.ports import ModelFacts
from core.pipelines.validation import check
from core.signature import Signature
from core.store.manifest import manifest_from_json
from core.store.names import check_model_name
from core.tasks.registry import task_class


async def find_pipeline(session: AsyncSession, name: str) -> Pipeline:
    """The pipeline of that name. Raises NotFound."""
    row = await Pipelines(session).by_name(name)
    if row is None:
        raise NotFound(f"There is no pipeline {name[:64]!r}.")
    return row


async def find_version(session: AsyncSession, pipeline: Pipeline, number: int | None = None) -> PipelineVersion:
    """A version of a pipeline, the newest where none is named. Raises NotFound."""
    row = await Pipelines(session).version(pipeline.id, number or pipeline.next_version - 1)
    if row is None:
        raise NotFound(f"The pipeline {pipeline.name} has no version {number}.")
    return row


async def plan_for(session: AsyncSession, text: str) -> Plan:
    """Check a definition against the models that there are. Raises WrongPipeline."""
    definition, problems = parse(text)
    return check(definition, problems, await facts_of(session, definition.models()))


async def add_pipeline(
    session: AsyncSession, name: str, text: str, actor: Actor
) -> tuple[Pipeline, PipelineVersion, Plan]:
    """Add a pipeline with its first version. Raises BadRequest, Conflict or WrongPipeline."""
    check_model_name(name)
    plan = await plan_for(session, text)
    pipeline = await Pipelines(session).add(name, actor.name)
    await actor.note(session, "pipeline.create", name)
    return pipeline, await _add_version(session, pipeline, text, plan, actor), plan


async def add_version(
    session: AsyncSession, name: str, text: str, actor: Actor
) -> tuple[Pipeline, PipelineVersion, Plan]:
    """Add the next version of a pipeline. Raises NotFound or WrongPipeline."""
    pipeline = await find_pipeline(session, name)
    plan = await plan_for(session, text)
    return pipeline, await _add_version(session, pipeline, text, plan, actor), plan


async def deploy(
    session: AsyncSession, name: str, version: int, spec: Mapping[str, Any], actor: Actor
) -> PipelineDeployment:
    """Desire a version. Raises NotFound, or WrongPipeline where it does not fit its models any more."""
    pipeline = await find_pipeline(session, name)
    row = await find_version(session, pipeline, version)
    await plan_for(session, row.definition)
    desired = await Pipelines(session).deploy(pipeline.id, version, dict(spec), actor.name)
    detail = {"generation": desired.generation, "version": version, **spec}
    await actor.note(session, "pipeline.deploy", name, detail)
    return desired


async def undeploy(session: AsyncSession, name: str, actor: Actor) -> PipelineDeployment:
    """Desire nothing. Raises NotFound where nothing is deployed."""
    pipeline = await find_pipeline(session, name)
    row = await Pipelines(session).undeploy(pipeline.id, actor.name)
    if row is None:
        raise NotFound(f"The pipeline {name} is not deployed.")
    await actor.note(session, "pipeline.undeploy", name, {"generation": row.generation})
    return row


async def remove(session: AsyncSession, name: str, actor: Actor) -> None:
    """Remove a pipeline with its versions. Raises NotFound, or Conflict while it is deployed."""
    await Pipelines(session).delete(await find_pipeline(session, name))
    await actor.note(session, "pipeline.delete", name)


async def facts_of(
    session: AsyncSession, wanted: Iterable[tuple[str, int | None]]
) -> dict[tuple[str, int | None], ModelFacts | str]:
    """What is known of these models, or why they cannot be used.

    Where no version is asked for, it is the one that is deployed, or else the newest valid one.
    """
    return {(name, number): await _facts(session, name, number) for name, number in wanted}


async def _facts(session: AsyncSession, name: str, number: int | None) -> ModelFacts | str:
    model = await Models(session).by_name(name)
    if model is None:
        pipeline = await Pipelines(session).by_name(name)
        what = f"`{name[:63]}` is a pipeline" if pipeline is not None else f"there is no model `{name[:63]}`"
        return f"{what}; a node needs a model."
    version = await _version(session, model, number)
    if version is None:
        return f"the model `{name}` has no {'valid version' if number is None else f'version {number}'}."
    if version.status != "valid":
        return f"version {version.version} of the model `{name}` is {version.status}, not valid."
    task = task_class(manifest_from_json(version.manifest).task)
    signature = Signature.from_json(version.signature) if version.signature else Signature((), ())
    return ModelFacts(task.name, task.modality, signature)


async def _version(session: AsyncSession, model: Model, number: int | None) -> Version | None:
    if number is not None:
        return await Versions(session).get(model.id, number)
    desired = await Deployments(session).get(model.id)
    if desired is not None and desired.running:
        live = [share["version"] for share in desired.spec["traffic"] if share.get("mode", "live") == "live"]
        return await Versions(session).get(model.id, max(live))
    return next((one for one in await Versions(session).list(model.id) if one.status == "valid"), None)


async def _add_version(
    session: AsyncSession, pipeline: Pipeline, text: str, plan: Plan, actor: Actor
) -> PipelineVersion:
    row = await Pipelines(session).add_version(pipeline, text, plan.definition.description, actor.name)
    await actor.note(session, "pipeline.version", f"{pipeline.name}/{row.version}")
    return row
