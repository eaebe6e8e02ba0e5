"""What the tabs of a model share: its name and state above, the row of tabs, and who may change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from fastapi import Path
from sqlalchemy.ext.asyncio import AsyncSession

from app.dashboard.page import MODELS, Crumb, Page, Section
from app.dashboard.pages.models.listing import state_of
from app.dashboard.traffic import Share, in_words, shares_of
from core.access.roles import Role
from core.access.sessions import Principal
from core.control.deploying import find_model
from core.database.repositories.deployments import Deployments
from core.database.repositories.models import Models
from core.database.repositories.versions import Versions
from core.database.tables import Deployment, DeploymentStatus, Model, Version

ModelName = Annotated[str, Path(max_length=63, pattern=r"^[a-z0-9]")]
VersionNumber = Annotated[int, Path(ge=1, le=1_000_000_000)]
_TABS: Final = (
    ("Live", ""),
    ("Versions", "/versions"),
    ("Deployment", "/deployment"),
    ("Optimiser", "/optimiser"),
    ("Samples", "/samples"),
    ("Logs", "/logs"),
    ("Settings", "/settings"),
)


@dataclass(frozen=True, slots=True)
class Head:
    """What stands above every tab."""

    model: Model
    desired: Deployment | None
    observed: tuple[DeploymentStatus, ...]
    versions: tuple[Version, ...]
    state: str
    reason: str
    can_change: bool
    before: str
    """What *Roll back* serves again, in words; empty where it can do nothing, or this user may not."""
    tags: tuple[str, ...] = ()

    def status(self, node: str) -> DeploymentStatus | None:
        """What is observed on a node."""
        return next((row for row in self.observed if row.node == node), None)

    @property
    def running(self) -> bool:
        """Whether it is to be in service."""
        return self.desired is not None and self.desired.running

    @property
    def shares(self) -> tuple[Share, ...]:
        """The versions in service."""
        return shares_of(self.desired.spec["traffic"]) if self.desired is not None and self.running else ()

    @property
    def valid(self) -> tuple[Version, ...]:
        """The versions that can be deployed, newest first."""
        return tuple(version for version in self.versions if version.status == "valid")

    @property
    def under_way(self) -> bool:
        """Whether what is asked for is not reached yet."""
        return self.state in ("pending", "loading", "warming", "draining")


@dataclass(frozen=True, slots=True)
class ModelPage(Page):
    """The base of a tab."""

    section: ClassVar[Section] = MODELS
    tab: ClassVar[str] = ""
    head: Head

    @property
    def name(self) -> str:
        """The model's."""
        return self.head.model.name

    @property
    def path(self) -> str:
        """The model's address."""
        return model_path(self.name)

    @property
    def title(self) -> str:
        """See Page."""
        return next((title for title, end in _TABS if end == self.tab), "") if self.tab else self.name

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        way = (Crumb(MODELS.title, MODELS.path),)
        return (*way, Crumb(self.name, self.path)) if self.title != self.name else way

    @property
    def tabs(self) -> list[tuple[str, str]]:
        """Each with its address."""
        return [(title, self.path + end) for title, end in _TABS]

    @property
    def current(self) -> str:
        """The address of this tab."""
        return self.path + self.tab


def model_path(name: str) -> str:
    """The address of a model; its name needs no quoting."""
    return f"{MODELS.path}/{name}"


def version_path(name: str, number: int) -> str:
    """The address of a version."""
    return f"{model_path(name)}/versions/{number}"


async def load_head(session: AsyncSession, name: str, user: Principal) -> Head:
    """What stands above a model's tabs. Raises ModelNotFound."""
    model = await find_model(session, name)
    desired = await Deployments(session).get(model.id)
    observed = await Deployments(session).observed(model.id)
    before = await Deployments(session).previous(model.id) if desired is not None else None
    state, reason = state_of(desired, observed)
    versions = tuple(await Versions(session).list(model.id))
    tags = tuple((await Models(session).tags_of([model.id])).get(model.id, ()))
    can_change = user.role.allows(Role.OPERATOR)
    way_back = _in_words(before.spec) if can_change and before is not None else ""
    return Head(model, desired, tuple(observed), versions, state, reason, can_change, way_back, tags)


def _in_words(spec: Mapping[str, Any]) -> str:
    optimised = spec.get("optimised") or {}
    return in_words(spec["traffic"]) + (", optimised" if optimised else "")
