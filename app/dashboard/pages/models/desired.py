"""Desiring something else of a model by a page: what the page does not ask for stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from app.dependencies import actor_of
from app.state import Platform
from core.access.sessions import Principal
from core.control.deploying import deploy, find_model
from core.control.engine_choice import check_choices
from core.database.repositories.deployments import Deployments
from core.errors import BadRequest
from schemas.deployments import DeploymentPut


async def desire(request: Request, user: Principal, house: Platform, name: str, wanted: Mapping[str, Any]) -> None:
    """Desire what is so now with some of it changed; where there is nothing, defaults are.

    Raises what `check_choices` and `deploy` raise, and BadRequest for what does not fit together.
    """
    await check_choices(wanted)
    async with house.database.transaction() as session:
        model = await find_model(session, name)
        now = await Deployments(session).get(model.id)
        kept = {key: one for key, one in (now.spec if now else {}).items() if key in DeploymentPut.model_fields}
        if "version" in wanted:
            kept.pop("traffic", None)
        if (kept.get("max_instances") or 64) < (wanted.get("instances") or 1):
            kept.pop("max_instances")
        body = _checked({**kept, **wanted})
        await deploy(session, name, body.model_dump(), house.settings.inference, actor_of(request, user))
    house.reconciler.wake()


def _checked(body: Mapping[str, Any]) -> DeploymentPut:
    try:
        return DeploymentPut.model_validate(body)
    except ValidationError as error:
        raise BadRequest(error.errors()[0]["msg"].removeprefix("Value error, ") + ".") from None
