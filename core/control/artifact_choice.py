"""Which file of a version is loaded, by which engine, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.control.desired import DesiredDeployment
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
    precision: str = ""
    """What it computes in, where a search has found that out or a deployment says so."""
    note: str = ""
    """Why a recommendation is not followed, as a sentence; empty where it is, or where there is none."""
    plain: bool = True
    """Whether it is what would run without any search: the upload, by the first engine for it, as it is."""


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


async def choose(
    session: AsyncSession,
    store: ArtifactStore,
    desired: DesiredDeployment,
    version: int,
    format_: str,
    artifact: Path,
) -> Choice:
    """With `auto` what was found to be the best; otherwise, and where that cannot be had, by the format.

    Raises LoadFailed where no engine runs it.
    """
    optimisation = desired.optimised.get(str(version)) if desired.engine == "auto" else None
    if optimisation is None:
        named = by_format(desired.engine, format_, artifact)
        return replace(named, extra=desired.engine_extra, precision=desired.precision or "")
    found = await _by_recommendation(session, store, optimisation, format_, artifact)
    return found if isinstance(found, Choice) else as_uploaded(format_, artifact, optimisation, found)


def as_uploaded(format_: str, artifact: Path, optimisation: int, reason: str) -> Choice:
    """The upload in place of what a search recommends, for the reason given (the end of a sentence)."""
    log.warning("optimisation.not_followed", optimisation_id=optimisation, reason=reason)
    note = f"It runs as uploaded, not as search {optimisation} recommends: {reason.rstrip('.')}."
    return replace(by_format("auto", format_, artifact), note=note)


async def _by_recommendation(
    session: AsyncSession, store: ArtifactStore, optimisation_id: int, format_: str, artifact: Path
) -> Choice | str:
    """What that search recommended, or why it cannot be followed here any more."""
    row = await Optimisations(session).get(optimisation_id)
    reason = why_stale(row)
    if row is None or row.recommendation is None or reason is not None:
        return reason or "it is gone"
    use, first = row.recommendation["use"], next(iter(engines_for(format_)), "")
    if use["artifact_id"] is None:
        return _followed(row, use, artifact, first)
    derived = await DerivedArtifacts(session).get(int(use["artifact_id"]))
    if derived is None or not (file := store.path(derived.sha256) / derived.model).is_file():
        return "its converted form is gone"
    if use.get("artifact_sha256") not in (None, derived.sha256):
        return "its converted form was made anew, and has not been judged since"
    return _followed(row, use, file, first, converted=True)


def _followed(
    row: Optimisation, use: Mapping[str, Any], file: Path, first: str, *, converted: bool = False
) -> Choice:
    threads = int(use["threads"]) if "streams" in use["extra"] else 0
    extra, precision = dict(use["extra"]), str(use["precision"])
    plain = not converted and not extra and (use["engine"], use["device"]) == (first, "cpu")
    return Choice(use["engine"], file, extra, use["device"], threads, row.id, converted, precision, plain=plain)


def why_stale(row: Optimisation | None) -> str | None:
    """Why a search's recommendation is not followed here any more, as the end of a sentence; None where it is."""
    if row is None or row.recommendation is None:
        return "it is gone"
    return row.fault or machine_changed(row)


def machine_changed(row: Optimisation) -> str | None:
    """What is not as it was when the search measured, as the end of a sentence; None where all is."""
    changed = what_changed(row.machine)
    return f"{changed} changed since it was measured" if changed is not None else None
