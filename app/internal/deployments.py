"""Deployments: what is desired, what is observed, and the way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.dependencies import House, Operator, Reading, Viewer, actor_of
from app.internal.models import ModelName
from app.state import Platform
from app.tallies import health_of
from core.control.actor import Actor
from core.control.deploying import deploy, find_model, roll_back, undeploy
from core.control.engine_choice import check_choices
from core.control.nodes import states_of
from core.database.repositories.deployments import Deployments
from core.database.tables import Deployment, DeploymentStatus
from core.errors import NotFound
from core.kill_points import reach
from core.serving.deployment import Deployment as LiveDeployment
from core.serving.runner import RunnerStats
from core.serving.version_health import Snapshot
from schemas.base import ErrorBody
from schemas.deployments import (
    DeploymentAccepted,
    DeploymentAnswer,
    DeploymentPut,
    Desired,
    ElsewhereAnswer,
    Observed,
    ObservedVersion,
    QueueAnswer,
    ShadowAnswer,
    SlotsAnswer,
)

router = APIRouter(prefix="/models/{name}/deployment", tags=["deployments"])
_CONFLICT: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody}, 409: {"model": ErrorBody}}


@router.put("", status_code=202, summary="Deploy", responses=_CONFLICT)
async def put_deployment(
    request: Request, name: ModelName, body: DeploymentPut, operator: Operator, house: House
) -> DeploymentAccepted:
    """Write down what should be served; the answer's generation is observed once it is so."""
    wanted = body.model_dump()
    await check_choices(wanted)
    async with house.database.transaction() as session:
        row = await deploy(session, name, wanted, house.settings.inference, actor_of(request, operator))
        generation = row.generation
        reach("deploy.written")
    reach("deploy.committed")
    return _accepted(house, generation)


@router.get("", summary="Desired and observed state", responses={404: {"model": ErrorBody}})
async def get_deployment(name: ModelName, _: Viewer, house: House, session: Reading) -> DeploymentAnswer:
    """What was asked for and what is; they agree once `observed.generation` is `desired.generation`."""
    model = await find_model(session, name)
    desired = await Deployments(session).get(model.id)
    if desired is None:
        raise NotFound(f"The model {name} has never been deployed.")
    observed = await Deployments(session).observed(model.id)
    status = next((row for row in observed if row.node == house.node), None)
    answer = await observed_answer(house, name, desired, status)
    others = [row for row in observed if row.node != house.node]
    answer.elsewhere = await _elsewhere(session, others) if others else []
    return DeploymentAnswer(desired=desired_answer(desired), observed=answer)


@router.post("/rollback", status_code=202, summary="Roll back", responses=_CONFLICT)
async def rollback_deployment(
    request: Request, name: ModelName, operator: Operator, house: House
) -> DeploymentAccepted:
    """Desire again what ran before."""
    async with house.database.transaction() as session:
        generation = (await roll_back(session, name, actor_of(request, operator))).generation
    return _accepted(house, generation)


@router.delete("", status_code=202, summary="Undeploy", responses=_CONFLICT)
async def delete_deployment(
    request: Request, name: ModelName, operator: Operator, house: House
) -> DeploymentAccepted:
    """Take the model out of service; requests under way are answered first."""
    actor: Actor = actor_of(request, operator)
    async with house.database.transaction() as session:
        generation = (await undeploy(session, name, actor)).generation
    return _accepted(house, generation)


def _accepted(house: Platform, generation: int) -> DeploymentAccepted:
    house.reconciler.wake()
    return DeploymentAccepted(generation=generation, state="pending")


def desired_answer(row: Deployment) -> Desired:
    """What was asked for, by its row."""
    return Desired.model_validate(
        {
            **row.spec,
            "generation": row.generation,
            "running": row.running,
            "updated_by": row.updated_by,
            "updated_at": row.updated_at,
        }
    )


async def observed_answer(
    house: Platform, name: str, desired: Deployment, status: DeploymentStatus | None
) -> Observed:
    """What is, by its row and by what this process serves and counts."""
    live = [served.target for served in house.catalogue.serving(name)]
    deployments = [target for target in live if isinstance(target, LiveDeployment)]
    stats = [await deployment.stats() for deployment in deployments]
    health = health_of(house, name, await house.reconciler.totals(name))
    versions = _versions(status.versions if status else [], health)
    return Observed(
        generation=status.generation if status else 0,
        state=status.state if status else "pending",
        reason=status.reason if status else "",
        versions=versions,
        queue=QueueAnswer(
            depth=sum(one.depth for one in stats),
            capacity=int(desired.spec["queue_size"]),
        ),
        slots=SlotsAnswer(
            now=sum(one.slots for one in stats),
            busy=sum(one.busy for one in stats),
            most=sum(one.max_slots for one in stats),
            threads=_summed(one.batch_threads for one in stats),
        ),
        batch_sizes=_summed(one.batch_sizes for one in stats),
        why_not_batching=_why_not_batching(deployments, stats),
        memory_bytes=sum(one.memory_bytes or 0 for one in versions if one.state != "idle"),
        updated_at=status.updated_at if status else None,
        node=house.node,
    )


async def _elsewhere(session: AsyncSession, rows: Sequence[DeploymentStatus]) -> list[ElsewhereAnswer]:
    """Of the servers that are known; what one had told that has left the list is of no interest."""
    alive = {state.row.name: state.alive for state in await states_of(session)}
    return [
        ElsewhereAnswer(
            node=row.node,
            alive=alive[row.node],
            generation=row.generation,
            state=row.state,
            reason=row.reason,
            updated_at=row.updated_at,
        )
        for row in rows
        if row.node in alive
    ]


def _summed(counts: Iterable[Mapping[int, int]]) -> dict[str, int]:
    total: Counter[int] = Counter()
    for one in counts:
        total.update(one)
    return {str(key): total[key] for key in sorted(total)}


def _versions(rows: Sequence[Mapping[str, Any]], snapshot: Snapshot) -> list[ObservedVersion]:
    """What the reconciler told about each version, with the counters of those that get requests."""
    return [ObservedVersion.model_validate({**_counted(snapshot, row), **row}) for row in rows]


def _counted(snapshot: Snapshot, row: Mapping[str, Any]) -> dict[str, Any]:
    counters = snapshot.get(str(row["version"]))
    if not counters or row["state"] not in ("serving", "shadow"):
        return {}
    return {
        "requests": counters["requests"],
        "errors": counters["errors"],
        "mean_ms": _mean(counters["total_ms"], counters["requests"] - counters["errors"]),
        "shadow": _shadow(counters.get("shadow")),
    }


def _shadow(stats: Mapping[str, Any] | None) -> ShadowAnswer | None:
    if stats is None:
        return None
    compared = stats["compared"]
    return ShadowAnswer(
        compared=compared,
        agreed=stats["agreed"],
        agreement=_mean(stats["agreed"], compared),
        dropped=stats["dropped"],
        errors=stats["errors"],
        live_ms=_mean(stats["live_ms"], compared),
        shadow_ms=_mean(stats["shadow_ms"], compared),
        max_abs_difference=stats["max_abs_difference"],
    )


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 4) if count else None


def _why_not_batching(deployments: Sequence[LiveDeployment], stats: Sequence[RunnerStats]) -> str | None:
    """The first reason of any version for batches that are smaller than asked for."""
    reasons = [one.why_not_batching for one in deployments] + [one.why_not_larger for one in stats]
    return next((reason for reason in reasons if reason), None)
