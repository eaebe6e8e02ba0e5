"""The default target of each modality: changed in the database, known in memory where requests are routed."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor
from core.database.repositories.defaults import DefaultTargets
from core.database.session import Database
from core.errors import Conflict, ModelNotFound, NotFound, Unprocessable
from core.serving.catalogue import Catalogue

MODALITIES = ("image", "audio", "text", "tensor")


class Defaults:
    """All defaults in memory, brought up to date by `refresh`. Belongs to one event loop."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self._database = database
        self._catalogue = catalogue
        self.targets: Mapping[str, str] = {}
        """The name of each modality's target."""

    async def refresh(self) -> None:
        """Read what is set now. Raises Unavailable."""
        async with self._database.session() as session:
            self.targets = await DefaultTargets(session).all()

    async def activate(self, session: AsyncSession, name: str, modality: str | None, actor: Actor) -> str:
        """Let a target that is in service be the default of its modality, which is answered.

        Raises ModelNotFound or NotReady for a name that cannot be called, Conflict for one of another modality.
        """
        takes = self._modality(name)
        if modality is not None and modality != takes:
            raise Conflict(f"The model {name} takes {takes}, and cannot be the default for {modality}.")
        await DefaultTargets(session).put(takes, name, actor.name)
        await actor.note(session, "model.activate", name, {"modality": takes})
        return takes

    async def deactivate(self, session: AsyncSession, modality: str, actor: Actor) -> None:
        """Let a modality have no default. Raises Unprocessable or NotFound."""
        if modality not in MODALITIES:
            raise Unprocessable(f"modality: there is no {modality[:64]!r}; there are {', '.join(MODALITIES)}.")
        if not await DefaultTargets(session).remove(modality):
            raise NotFound(f"There is no default for {modality}.")
        await actor.note(session, "model.deactivate", modality)

    def _modality(self, name: str) -> str:
        targets = self._catalogue.callable_targets(name)
        if not targets:
            error = self._catalogue.why_not(name)
            # Its words are for callers with a token; whoever sets defaults may see every model.
            raise ModelNotFound(f"There is no model {name[:64]!r} in service.") if error.status == 404 else error
        return targets[0].modality
