"""What a node reads in the database of what is desired, and what it tells of its models."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.desired import DesiredDeployment, desired_from_row
from core.control.model_state import ModelState
from core.database.repositories.deployments import Deployments
from core.database.session import Database
from core.kill_points import reach


async def read_desired(session: AsyncSession) -> dict[str, DesiredDeployment]:
    """All that is desired, by the model's name."""
    return {
        row.model.name: desired_from_row(
            row.model_id,
            row.model.name,
            row.generation,
            row.running,
            row.spec,
            origin=f"{row.model_id} {row.model.created_at.isoformat()}",
        )
        for row in await Deployments(session).desired()
    }


async def write_observed(database: Database, node: str, states: Iterable[ModelState]) -> None:
    """Tell what changed since the last time; a state that cannot be told stays dirty. Raises PlatformError."""
    looked_at = list(states)
    for state in looked_at:
        state.look_at_hosts()
    changed = [state for state in looked_at if state.dirty and state.model_id and not state.removing]
    if not changed:
        return
    for state in changed:
        state.dirty = False
    try:
        async with database.transaction() as session:
            repository = Deployments(session)
            for state in changed:
                await repository.write_observed(
                    state.model_id,
                    node,
                    generation=state.generation,
                    state=state.state,
                    reason=state.observed_reason(),
                    versions=state.versions(),
                )
    except BaseException:
        for state in changed:
            state.dirty = True
        raise
    if any(state.state == "serving" for state in changed):
        reach("deploy.observed")
