"""What a search needs of the catalogue, and what becomes of its result."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor
from core.database.repositories.optimisations import Optimisations
from core.database.repositories.samples import Samples
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import Sample, Version
from core.engines.cores import cores_available
from core.engines.registry import list_engines, outside_engines
from core.errors import Conflict, ConversionFailed
from core.optimiser.candidate import TrialResult, Variant
from core.optimiser.confined import DEFAULT_LIMITS
from core.optimiser.conversion import CONVERSIONS
from core.optimiser.feed_child import FeedJob, Feeds, make_feeds
from core.optimiser.installed import installed_variants
from core.optimiser.samples import StoredSample, split
from core.optimiser.space import Here
from core.settings import Settings
from core.store.artifacts import ArtifactStore
from core.store.manifest import manifest_from_json
from core.store.samples import SampleStore
from core.tasks.labels import read_labels

MOST_CALIBRATING: Final = 256
MOST_JUDGING: Final = 1000
MOST_BYTES: Final = 1 << 30
"""Each half of the samples may take so many bytes as engine inputs on disk."""
PREPARING: Final = 6
"""Each half's preparation may take this part of the search's time: one in six."""
LEAST_S: Final = 2.0
_CLASSES: Final = "classification"


@dataclass(frozen=True, slots=True)
class Inside:
    """Where things are, and the version that is searched for."""

    database: Database
    store: ArtifactStore
    settings: Settings
    version: Version


@dataclass(frozen=True, slots=True)
class Inputs:
    """Engine inputs in files, one sample each: those that calibrate, and those that judge.

    `labels` holds the true class of each judging item, None where it is not known; `synthetic` says that there
    was nothing to judge by, and the inputs are random.
    """

    calibrating: Sequence[Path]
    calibrating_ids: Sequence[int]
    judging: Sequence[Path]
    labels: Sequence[Sequence[int | None]] = ()
    classes: bool = False
    synthetic: bool = False
    left_out: Sequence[str] = field(default_factory=tuple)
    bounded: Sequence[str] = field(default_factory=tuple)
    """Which samples were not used for want of time or room, as sentences."""

    def to_json(self, judged: int) -> dict[str, Any]:
        """For people; `judged` is how many of the judging ones the reference answered."""
        bounded, judging = list(self.bounded), len(self.judging)
        if judged < judging:
            bounded.append(
                f"The reference answered {judged} of the {judging} that judge within its time and room."
            )
        return {
            "calibrating": 0 if self.synthetic else len(self.calibrating),
            "judging": 0 if self.synthetic else judging,
            "judged": 0 if self.synthetic else judged,
            "labelled": sum(label is not None for part in self.labels for label in part),
            "synthetic": self.synthetic,
            "left_out": list(self.left_out),
            "bounded": bounded,
        }


async def inputs_of(inside: Inside, folder: Path, budget_s: float) -> Inputs:
    """Prepare a model's samples as serving would, half to calibrate, half to judge, in a third of the budget.

    With fewer than two samples nothing can be judged: the inputs are made up. Raises ConversionFailed.
    """
    seconds = max(LEAST_S, budget_s / PREPARING)
    samples = SampleStore(inside.settings.samples_dir, min_free_bytes=inside.settings.store.min_free_bytes)
    async with inside.database.session() as session:
        rows = await Samples(session).list(inside.version.model_id)
    calibrating, judging = split([_stored(row, samples) for row in rows])
    if not judging:
        made_up = await _feeds(inside, [], folder / "made-up", seconds)
        return Inputs(made_up.paths, (), made_up.paths, classes=_is_classification(inside), synthetic=True)
    calibrated = await _feeds(inside, calibrating[:MOST_CALIBRATING], folder / "calibrating", seconds)
    judged = await _feeds(inside, judging[:MOST_JUDGING], folder / "judging", seconds)
    labels = await asyncio.to_thread(_labels, inside, judging, judged)
    bounded = [
        f"Of {len(samples)} samples that {what}, {len(feeds.ids)} are used: {why}."
        for what, samples, feeds, most in (
            ("calibrate", calibrating, calibrated, MOST_CALIBRATING),
            ("judge", judging, judged, MOST_JUDGING),
        )
        if (why := feeds.cut or (f"{most} are enough" if len(samples) > most else ""))
    ]
    return Inputs(
        calibrated.paths,
        calibrated.ids,
        judged.paths,
        labels,
        _is_classification(inside),
        False,
        (*calibrated.left_out, *judged.left_out),
        bounded,
    )


async def calibrating_again(inside: Inside, calibration: Mapping[str, Any], folder: Path) -> Sequence[Path]:
    """The inputs that a recipe's `calibration` names. Raises ConversionFailed where samples of it are gone."""
    wanted = [int(one) for one in calibration.get("samples") or ()]
    if not wanted and not calibration.get("synthetic"):
        return ()
    samples = SampleStore(inside.settings.samples_dir, min_free_bytes=inside.settings.store.min_free_bytes)
    async with inside.database.session() as session:
        rows = {row.id: row for row in await Samples(session).list(inside.version.model_id)}
    missing = sum(one not in rows for one in wanted)
    if missing:
        raise ConversionFailed(
            f"{missing} of the {len(wanted)} samples that calibrated it are gone; search again."
        )
    stored = [_stored(rows[one], samples) for one in wanted]
    return (await _feeds(inside, stored, folder)).paths


def _stored(row: Sample, samples: SampleStore) -> StoredSample:
    return StoredSample(row.id, row.sha256, row.media_type, row.label, samples.path(row.sha256))


async def _feeds(
    inside: Inside, samples: Sequence[StoredSample], into: Path, seconds: float | None = None
) -> Feeds:
    """Engine inputs of these samples, of as many as there is room for, and time where `seconds` says how much."""
    version = inside.version
    limits = DEFAULT_LIMITS
    job = FeedJob(
        version.manifest,
        inside.store.path(version.sha256),
        version.signature or {},
        samples,
        into,
        inside.settings.inference.max_pixels,
        max_bytes=MOST_BYTES,
    )
    if seconds is not None:
        # One sample may be slow; a process that is late by as much again hangs.
        job = replace(job, seconds=seconds)
        limits = replace(limits, wall_s=min(limits.wall_s, max(10.0, 2 * seconds)))
    return await make_feeds(job, limits)


def _is_classification(inside: Inside) -> bool:
    return manifest_from_json(inside.version.manifest).task.endswith(_CLASSES)


def _labels(inside: Inside, samples: Sequence[StoredSample], feeds: Feeds) -> list[list[int | None]]:
    """The class of each sample that was usable: its label is a class's number, or its name in the manifest."""
    manifest = manifest_from_json(inside.version.manifest)
    names = read_labels(manifest.labels, inside.store.path(inside.version.sha256)) or []
    numbers = {name.casefold(): number for number, name in enumerate(names)}
    said = {sample.id: sample.label for sample in samples}
    return [[_class_of(said.get(one), numbers)] for one in feeds.ids]


def _class_of(label: str | None, numbers: Mapping[str, int]) -> int | None:
    if label is None:
        return None
    found = numbers.get(label.strip().casefold())
    return found if found is not None else int(label) if label.strip().isdecimal() else None


def here_for(version: Version, inputs: Inputs) -> Here:
    """What this machine has for a version. Conversions that calibrate are left out where there is nothing to."""
    infos = [info for info in list_engines() if info.available]
    conversions = [
        name
        for name, conversion in CONVERSIONS.items()
        if version.format.startswith(conversion.source_format) and not (conversion.calibrated and inputs.synthetic)
    ]
    return Here(
        {info.name: info.devices for info in infos},
        {info.name: info.precisions for info in infos},
        conversions,
        cores_available(),
    )


def more_for(version: Version, wanted: Mapping[str, Any]) -> list[Variant]:
    """What else can be tried for a version because it is installed here. Blocks: it asks each engine."""
    from core.engines.onnx import OnnxEngine  # not at every start

    return installed_variants(
        version.format,
        OnnxEngine.providers(),
        outside_engines(),
        list_engines(),
        tuple(wanted.get("engines") or ()),
        tuple(wanted.get("precisions") or ()),
    )


def use_of(trial: TrialResult, derived: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """What a loader needs to run a version as this trial did; `derived`: forms' ids and SHA-256 by conversion.

    The SHA-256 is kept so that another file, made anew in the same way, is not taken for the one that was judged.
    """
    artifact_id, sha256 = derived.get(trial.candidate.variant.conversion, (None, None))
    return {
        **trial.candidate.to_json(),
        "extra": trial.candidate.extra,
        "label": trial.candidate.label,
        "artifact_id": artifact_id,
        "artifact_sha256": sha256,
    }


async def recommended_for(
    session: AsyncSession, model_id: int, traffic: Sequence[Mapping[str, Any]]
) -> dict[str, int]:
    """By version, the search whose recommendation `engine: auto` follows."""
    found = {}
    for share in traffic:
        version = await Versions(session).get(model_id, int(share["version"]))
        row = await Optimisations(session).recommended(version.id) if version is not None else None
        if row is not None and row.recommendation is not None:
            found[str(share["version"])] = row.id
    return found


async def begin(session: AsyncSession, version: Version, model: str, wanted: dict[str, Any], actor: Actor) -> int:
    """Queue a search; returns its id. Raises Conflict for a version that is not valid, or one under way."""
    if version.status != "valid":
        raise Conflict(f"Version {version.version} of {model} is {version.status}; only a valid one is optimised.")
    row = await Optimisations(session).add(version.id, wanted, actor.name)
    await actor.note(session, "version.optimise", f"{model}/{version.version}", {"optimisation": row.id, **wanted})
    return row.id
