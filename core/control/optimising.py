"""What a search needs of the catalogue, and what becomes of its result."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import SYSTEM, Actor
from core.database.repositories.deployments import Deployments
from core.database.repositories.models import Models
from core.database.repositories.optimisations import Optimisations
from core.database.repositories.samples import Samples
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import Sample, Version
from core.engines.cores import cores_available
from core.engines.registry import list_engines
from core.errors import Conflict
from core.optimiser.candidate import TrialResult
from core.optimiser.conversion import CONVERSIONS
from core.optimiser.feed_child import FeedJob, Feeds, make_feeds
from core.optimiser.samples import StoredSample, split
from core.optimiser.space import Here
from core.settings import Settings
from core.store.artifacts import ArtifactStore
from core.store.manifest import manifest_from_json
from core.store.samples import SampleStore
from core.tasks.labels import read_labels

MOST_CALIBRATING: Final = 256
MOST_JUDGING: Final = 1000
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

    def to_json(self) -> dict[str, Any]:
        """For people."""
        return {
            "calibrating": 0 if self.synthetic else len(self.calibrating),
            "judging": 0 if self.synthetic else len(self.judging),
            "labelled": sum(label is not None for part in self.labels for label in part),
            "synthetic": self.synthetic,
            "left_out": list(self.left_out),
        }


async def inputs_of(inside: Inside, folder: Path) -> Inputs:
    """Prepare a model's samples as serving would, half to calibrate, half to judge. Raises ConversionFailed.

    With fewer than two samples nothing can be judged: the inputs are made up.
    """
    samples = SampleStore(inside.settings.samples_dir, min_free_bytes=inside.settings.store.min_free_bytes)
    async with inside.database.session() as session:
        rows = await Samples(session).list(inside.version.model_id)
    calibrating, judging = split([_stored(row, samples) for row in rows])
    if not judging:
        made_up = await make_feeds(_feed_job(inside, [], folder / "made-up"))
        return Inputs(made_up.paths, (), made_up.paths, classes=_is_classification(inside), synthetic=True)
    judging = judging[:MOST_JUDGING]
    calibrated = await make_feeds(_feed_job(inside, calibrating[:MOST_CALIBRATING], folder / "calibrating"))
    judged = await make_feeds(_feed_job(inside, judging, folder / "judging"))
    labels = await asyncio.to_thread(_labels, inside, judging, judged)
    return Inputs(
        calibrated.paths,
        calibrated.ids,
        judged.paths,
        labels,
        _is_classification(inside),
        False,
        (*calibrated.left_out, *judged.left_out),
    )


def _stored(row: Sample, samples: SampleStore) -> StoredSample:
    return StoredSample(row.id, row.sha256, row.media_type, row.label, samples.path(row.sha256))


def _feed_job(inside: Inside, samples: Sequence[StoredSample], into: Path) -> FeedJob:
    version = inside.version
    max_pixels = inside.settings.inference.max_pixels
    root = inside.store.path(version.sha256)
    return FeedJob(version.manifest, root, version.signature or {}, samples, into, max_pixels)


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


def use_of(trial: TrialResult, derived: Mapping[str, int]) -> dict[str, Any]:
    """What a loader needs to run a version as this trial did; `derived` has the converted forms' ids."""
    conversion = trial.candidate.variant.conversion
    return {
        **trial.candidate.to_json(),
        "extra": trial.candidate.extra,
        "label": trial.candidate.label,
        "artifact_id": derived.get(conversion) if conversion else None,
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


async def apply_recommendation(session: AsyncSession, optimisation_id: int) -> bool:
    """Let a deployment with `engine: auto` follow what was found; False where there is none to change.

    Raises Conflict, ModelNotFound where the rows have gone meanwhile.
    """
    row = await Optimisations(session).get(optimisation_id)
    version = await session.get(Version, row.version_id) if row is not None else None
    if row is None or version is None or row.recommendation is None or not row.wanted.get("apply", True):
        return False
    await Models(session).lock(version.model_id)  # what is desired must not change between here and the write
    deployment = await Deployments(session).get(version.model_id)
    if deployment is None or not deployment.running or deployment.spec.get("engine", "auto") != "auto":
        return False
    traffic = deployment.spec["traffic"]
    optimised = {**(deployment.spec.get("optimised") or {}), str(version.version): row.id}
    if not any(int(share["version"]) == version.version for share in traffic):
        return False
    if optimised == deployment.spec.get("optimised"):
        return False
    spec = {key: value for key, value in deployment.spec.items() if key != "rolled_back"}
    put = await Deployments(session).put(version.model_id, {**spec, "optimised": optimised}, SYSTEM.name)
    detail = {"generation": put.generation, "optimisation": optimisation_id, "version": version.version}
    await SYSTEM.note(session, "deployment.optimise", str(version.model_id), detail)
    return True


async def begin(session: AsyncSession, version: Version, model: str, wanted: dict[str, Any], actor: Actor) -> int:
    """Queue a search; returns its id. Raises Conflict for a version that is not valid, or one under way."""
    if version.status != "valid":
        raise Conflict(f"Version {version.version} of {model} is {version.status}; only a valid one is optimised.")
    row = await Optimisations(session).add(version.id, wanted, actor.name)
    await actor.note(session, "version.optimise", f"{model}/{version.version}", {"optimisation": row.id, **wanted})
    return row.id
