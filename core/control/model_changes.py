"""Changes of models by hand: describe, tag, check a version again, remove."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor
from core.control.deploying import find_model, find_version
from core.control.samples import SampleBook
from core.control.uploads import Uploads
from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.models import Models
from core.database.repositories.samples import Samples
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import Model, Version, utc_now
from core.errors import Conflict, Unprocessable
from core.kill_points import reach

MAX_TAGS: Final = 16
_TAG: Final = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,31}", re.ASCII)


async def change_model(session: AsyncSession, name: str, changes: Mapping[str, Any], actor: Actor) -> Model:
    """Change the `description` or the `tags` of a model. Raises ModelNotFound and Unprocessable."""
    models = Models(session)
    model = await find_model(session, name)
    before: dict[str, Any] = {}
    if "description" in changes:
        before["description"], model.description = model.description, changes["description"]
    if "tags" in changes:
        changes = {**changes, "tags": checked_tags(changes["tags"])}
        before["tags"] = list((await models.tags_of([model.id])).get(model.id, ()))
        await models.set_tags(model.id, changes["tags"])
    await models.save(model)
    await session.refresh(model)
    await actor.note(session, "model.update", name, {**changes, "before": before})
    return model


def checked_tags(tags: Iterable[str]) -> list[str]:
    """Tags in order, each once. Raises Unprocessable, naming the bad one."""
    wanted = sorted(set(tags))
    for tag in wanted:
        if not _TAG.fullmatch(tag):
            raise Unprocessable(
                f"tags: {tag[:40]!r} is none; a tag has 1 to 32 of the characters a-z 0-9 . _ : / - and begins "
                "with one of a-z 0-9."
            )
    if len(wanted) > MAX_TAGS:
        raise Unprocessable(f"tags: at most {MAX_TAGS}.")
    return wanted


async def check_again(session: AsyncSession, name: str, number: int, actor: Actor) -> Version:
    """Let all checks of a version run again; `validations` must be woken afterwards.

    Raises ModelNotFound, and Conflict while they run and for an archived version.
    """
    version = await find_version(session, name, number)
    if version.status == "archived":
        raise Conflict(f"Version {number} of {name} is archived; restore it first.")
    if not await Versions(session).claim(version.id, utc_now() - timedelta(seconds=1)):
        raise Conflict(f"Version {number} of {name} is being validated already.")
    await actor.note(session, "version.validate", f"{name}/{number}")
    await session.refresh(version)
    return version


async def remove_model(database: Database, uploads: Uploads, samples: SampleBook, name: str, actor: Actor) -> None:
    """Remove a model with its versions and files. Raises ModelNotFound, and Conflict while it is deployed."""
    async with database.session() as session:
        there = await _addresses(session, await find_model(session, name))
    async with uploads.removing(there), database.transaction() as session:
        model = await find_model(session, name)
        late = await _addresses(session, model) - there
        sampled = {sample.sha256 for sample in await Samples(session).list(model.id)}
        await Models(session).delete(model)
        await actor.note(session, "model.delete", name)
        reach("remove.written")
    await uploads.forget(late)
    await samples.forget(sampled)


async def _addresses(session: AsyncSession, model: Model) -> set[str]:
    """The artifacts of a model: its versions' and their converted forms'."""
    versions = {version.sha256 for version in await Versions(session).list(model.id)}
    return versions | {derived.sha256 for derived in await DerivedArtifacts(session).of_model(model.id)}
