"""Which file of a version is loaded, by which engine, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.optimisations import Optimisations
from core.database.tables import Optimisation
from core.engines.registry import engines_for
from core.errors import LoadFailed
from core.optimiser.machine import what_changed
from core.store.artifacts import ArtifactStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine, the file it loads, its own options, and the device where that is not the deployment's."""

    engine: str
    artifact: Path
    extra: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    threads: int = 0
    """Inside one run, where the engine divides the cores itself; 0 leaves it to the deployment."""
    optimisation: int | None = None
    """The search that recommended it, if one did."""
    converted: bool = False
    """Whether the file is another than was uploaded, so that what its manifest says of tensors is not its own."""


def by_format(wanted: str, format_: str, artifact: Path) -> Choice:
    """The engine that was asked for, or with `auto` the first that runs this format. Raises LoadFailed."""
    able = engines_for(format_)
    if wanted == "auto":
        if not able:
            raise LoadFailed(f"No engine here runs {format_} models.")
        return Choice(able[0], artifact)
    if wanted not in able:
        raise LoadFailed(f"Engine {wanted} does not run {format_} models; these do: {', '.join(able) or 'none'}.")
    return Choice(wanted, artifact)


async def by_recommendation(
    session: AsyncSession, store: ArtifactStore, optimisation_id: int, artifact: Path
) -> Choice | None:
    """What that search recommended; None where it cannot be followed here any more, which is logged."""
    row = await Optimisations(session).get(optimisation_id)
    reason = why_stale(row)
    if row is not None and row.recommendation is not None and reason is None:
        use = row.recommendation["use"]
        if use["artifact_id"] is None:
            return _followed(row, use, artifact)
        derived = await DerivedArtifacts(session).get(int(use["artifact_id"]))
        if derived is not None and store.exists(derived.sha256):
            return _followed(row, use, store.path(derived.sha256) / derived.model, converted=True)
        reason = "its converted form is gone"
    log.warning("optimisation.stale", optimisation_id=optimisation_id, reason=reason)
    return None


def _followed(row: Optimisation, use: Mapping[str, Any], file: Path, *, converted: bool = False) -> Choice:
    threads = int(use["threads"]) if "streams" in use["extra"] else 0
    return Choice(use["engine"], file, dict(use["extra"]), use["device"], threads, row.id, converted)


def why_stale(row: Optimisation | None) -> str | None:
    """Why a search's recommendation is not followed here any more, as the end of a sentence; None where it is."""
    if row is None or row.recommendation is None:
        return "it is gone"
    changed = what_changed(row.machine)
    return f"{changed} changed since it was measured" if changed is not None else None
