"""What of a model is to be in service: the form, a canary or a shadow beside it, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import Query, Request
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse, Response

from app.dashboard.cookies import flash
from app.dashboard.forms import WHOLE, Filled, fill
from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.pages.models.desired import desire
from app.dashboard.pages.models.model import Head, ModelName, ModelPage, load_head, model_path
from app.dashboard.pages.models.watch_form import WatchForm
from app.dashboard.rendering import render
from app.dependencies import House, Reading, actor_of
from app.internal.deployments import observed_answer
from app.state import Platform
from app.tallies import traffic_of
from core.access.sessions import Principal
from core.control.deploying import find_model, roll_back, undeploy
from core.database.repositories.deployments import Deployments
from core.engines.registry import engines_for
from core.errors import BadRequest, Conflict, PlatformError
from core.settings import InferenceSettings
from schemas.deployments import DeploymentPut, ObservedVersion

router = pages()
_SHOWN: Final = (
    "version",
    "engine",
    "isolation",
    "instances",
    "max_batch",
    "max_delay_ms",
    "timeout_ms",
    "idle_unload_s",
    "pinned",
    "device",
    "precision",
    "hint",
    "max_instances",
    "max_tokens",
    "queue_size",
    "cache",
)
"""What the form holds, beside when to go back. The rest of a deployment stays as it is."""
_BESIDE: Final = "beside-"
"""What ids of that form begin with."""


class DeployForm(DeploymentPut, WatchForm):
    """A version that is to answer all callers, and how."""

    def spec(self) -> dict[str, Any]:
        """What of a deployment it says."""
        return {**self.model_dump(include=set(_SHOWN)), "watch": self.limits()}


class Beside(WatchForm):
    """A version that is to answer some callers, or none, beside the one in service."""

    version: int = Field(ge=1)
    percent: int = Field(10, ge=0, le=100)
    mode: Literal["live", "shadow"] = "live"


@dataclass(frozen=True, slots=True)
class DeploymentPage(ModelPage):
    """Desired, and what may be desired instead."""

    template: ClassVar[str] = "pages/models/deployment.html"
    tab: ClassVar[str] = "/deployment"
    engines: Sequence[str]
    observed: Sequence[ObservedVersion]
    answered: int
    defaults: InferenceSettings
    chosen: int | None = None
    form: Filled[DeployForm] = field(default_factory=Filled)
    beside: Filled[Beside] = field(default_factory=lambda: Filled(prefix=_BESIDE))

    @property
    def spec(self) -> Mapping[str, Any]:
        """What is desired now, or was last."""
        return self.head.desired.spec if self.head.desired is not None else {}

    @property
    def version(self) -> int | None:
        """The version that the form begins with: the one asked for, the one in service, the newest."""
        live = [share.version for share in self.head.shares if share.part is not None]
        newest = [version.version for version in self.head.valid]
        return next((one for one in (self.chosen, *live, *newest) if one in newest), None)

    @property
    def others(self) -> list[int]:
        """The versions that can stand beside what is in service."""
        whole = [share.version for share in self.head.shares if share.part == 1]
        return [version.version for version in self.head.valid if version.version not in whole]

    @property
    def percents(self) -> dict[int, int]:
        """The part of the traffic of each version in service that gets some."""
        return {share.version: round(share.part * 100) for share in self.head.shares if share.part is not None}

    @property
    def canary(self) -> int | None:
        """The newest of several versions that share the traffic."""
        return max(self.percents) if len(self.percents) > 1 else None

    @property
    def beginning(self) -> int:
        """The version that the form for a canary begins with: the one asked for, the canary, the newest."""
        return next(one for one in (self.chosen, self.canary, *self.others) if one in self.others)

    @property
    def shadows(self) -> list[ObservedVersion]:
        """Versions whose answers are compared and thrown away."""
        return [one for one in self.observed if one.shadow is not None or one.state == "shadow"]


@router.get("/models/{name}/deployment")
async def deployment(
    request: Request,
    name: ModelName,
    user: Viewer,
    house: House,
    session: Reading,
    version: Annotated[int | None, Query(ge=1, le=1_000_000_000)] = None,
) -> Response:
    """The page."""
    return render(request, await _page(session, house, name, user, chosen=version))


@router.post("/models/{name}/deployment")
async def put_deployment(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Desire one version with these settings."""
    form = fill(DeployForm, await request.form())
    if form.value is not None:
        try:
            await desire(request, user, house, name, form.value.spec())
            return _applying(request, name)
        except PlatformError as error:
            form = form.refused(error)
    async with house.database.session() as session:
        return render(request, await _page(session, house, name, user, form=form), 422)


@router.post("/models/{name}/beside")
async def put_beside(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Give a version a part of the traffic, all of it, none, or copies only."""
    form = replace(fill(Beside, await request.form()), prefix=_BESIDE)
    if form.value is not None:
        try:
            async with house.database.session() as session:
                model = await find_model(session, name)
                now = await Deployments(session).get(model.id)
            if now is None or not now.running:
                raise Conflict("Nothing is in service that a version could stand beside. Deploy it instead.")
            wanted = {"traffic": traffic_with(now.spec["traffic"], form.value), "watch": form.value.limits()}
            await desire(request, user, house, name, wanted)
            return _applying(request, name)
        except PlatformError as error:
            form = form.refused(error)
    async with house.database.session() as session:
        return render(request, await _page(session, house, name, user, beside=form), 422)


@router.post("/models/{name}/rollback")
async def go_back(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Desire again what ran before."""
    async with house.database.transaction() as session:
        row = await roll_back(session, name, actor_of(request, user))
        versions = ", ".join(f"v{one['version']}" for one in row.spec["traffic"])
    house.reconciler.wake()
    response = RedirectResponse(model_path(name), 303)
    flash(request, response, f"Going back to {versions}. What serves now goes on until it has taken over.")
    return response


@router.post("/models/{name}/undeploy")
async def stop(request: Request, name: ModelName, user: Operator, house: House) -> Response:
    """Take the model out of service."""
    if (await request.form()).get("confirm") != name:
        raise BadRequest("The name that was typed is not the model's, so nothing was done.")
    async with house.database.transaction() as session:
        await undeploy(session, name, actor_of(request, user))
    house.reconciler.wake()
    response = RedirectResponse(model_path(name), 303)
    flash(request, response, "It is being taken out of service; requests under way are answered first.")
    return response


def traffic_with(now: Sequence[Mapping[str, Any]], wanted: Beside) -> list[dict[str, Any]]:
    """The traffic with a version's part changed; the others share the rest as they did. Raises Conflict."""
    others = [dict(one) for one in now if one["version"] != wanted.version]
    live = [one for one in others if one["mode"] == "live"]
    if wanted.mode == "shadow":
        if not live:
            raise Conflict(f"Version {wanted.version} answers all callers; a shadow stands beside one that does.")
        return [*others, {"version": wanted.version, "weight": 1.0, "mode": "shadow"}]
    if wanted.percent == 100:
        return [{"version": wanted.version, "weight": 1.0, "mode": "live"}]
    if not live:
        raise Conflict(f"Version {wanted.version} is the only one in service, so it answers all callers.")
    whole = sum(float(one["weight"]) for one in live)
    for one in live:
        one["weight"] = round(float(one["weight"]) / whole * (100 - wanted.percent), 4)
    if wanted.percent == 0:
        return others
    return [*others, {"version": wanted.version, "weight": float(wanted.percent), "mode": "live"}]


def _applying(request: Request, name: str) -> Response:
    response = RedirectResponse(model_path(name), 303)
    flash(request, response, "Applying. What served before goes on until the new state is reached.")
    return response


async def _page(
    session: AsyncSession,
    house: Platform,
    name: str,
    user: Principal,
    *,
    chosen: int | None = None,
    form: Filled[DeployForm] | None = None,
    beside: Filled[Beside] | None = None,
) -> DeploymentPage:
    head = await load_head(session, name, user)
    observed: Sequence[ObservedVersion] = ()
    if head.desired is not None and head.running:
        observed = (await observed_answer(house, name, head.desired, head.status(house.node))).versions
    traffic = traffic_of(house, await house.reconciler.totals(name)).get(name)
    engines = await asyncio.to_thread(_engines, head)
    answered = traffic.requests if traffic else 0
    page = DeploymentPage(head, engines, observed, answered, house.settings.inference, chosen, _in_words(form))
    return replace(page, beside=beside) if beside is not None else page


def _in_words(form: Filled[DeployForm] | None) -> Filled[DeployForm]:
    """Errors of the form as a whole say the fields' names in the words of the page."""
    if form is None:
        return Filled()
    whole = form.errors.get(WHOLE, "")
    if "pinned" in whole:
        return Filled(
            form.texts, {"idle_unload_s": "What is pinned stays in memory: leave this empty, or unpin it."}
        )
    return form


def _engines(head: Head) -> list[str]:
    """The engines that run any of the versions that can be deployed."""
    found = {engine for version in head.valid for engine in engines_for(version.format)}
    return sorted(found)
