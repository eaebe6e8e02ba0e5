"""Adds and removes samples of models: checks, files, rows, within the caps of the settings."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from core.control.actor import Actor
from core.control.sample_check import media_type_of
from core.control.sample_labels import LABEL_FILES, read_labels
from core.database.repositories.models import Models
from core.database.repositories.samples import Samples
from core.database.session import Database
from core.database.tables import Model
from core.errors import ModelNotFound, TooLarge, Unprocessable
from core.settings import Settings
from core.store.archives import ArchiveLimits, extract
from core.store.artifacts import ArtifactStore
from core.store.disk import Stopped, in_thread
from core.store.paths import shown
from core.store.samples import SampleStore
from core.store.uploads import Received
from core.store.zip_reader import open_zip
from core.tasks.registry import task_class

_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".npy", ".npz", ".json", ".jsonl", ".txt", ".csv"),
)
_MAX_LABEL_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample whose bytes are in the store and whose row is not written yet."""

    sha256: str
    media_type: str
    size_bytes: int
    name: str
    label: str | None


@dataclass(frozen=True, slots=True)
class Added:
    """What became of an upload: samples that are new, and those that were there already."""

    added: int
    known: int


class SampleBook:
    """The samples of all models."""

    def __init__(self, database: Database, artifacts: ArtifactStore, settings: Settings) -> None:
        self.store = SampleStore(settings.samples_dir, min_free_bytes=settings.store.min_free_bytes)
        self._database = database
        self._artifacts = artifacts
        self._settings = settings
        self._writing = asyncio.Lock()

    async def add(
        self, model: Model, received: Received, name: str, label: str | None, labels: str | None, actor: Actor
    ) -> Added:
        """Add an upload, one sample or a zip of them with perhaps a `labels.csv`; `received` is used up.

        All of it is taken, or nothing. Raises UnsupportedMedia, TooLarge, Unprocessable, InvalidPackage,
        StorageFull, ModelNotFound.
        """
        kept: list[Kept] = []
        try:
            # One at a time, so that what a failed upload takes back is never another's that has just been kept.
            async with self._writing:
                try:
                    await in_thread(lambda stop: self._unpack(model, received, name, label, labels, kept, stop))
                    return await self._write(model, kept, actor)
                except BaseException:
                    await self._forget({one.sha256 for one in kept})
                    raise
        finally:
            await self._artifacts.discard(received)

    async def add_live(self, model: Model, data: bytes, max_count: int) -> None:
        """Keep a live input, in the place of another live one, by chance, where there are `max_count` already.

        Raises UnsupportedMedia, TooLarge, StorageFull, ModelNotFound.
        """
        async with self._writing:
            kept = await asyncio.to_thread(self._keep_bytes, model, data, "live", None)
            idle = {kept.sha256}
            try:
                async with self._database.transaction() as session:
                    idle = await self._replace(session, model, kept, max_count)
            finally:
                await self._forget(idle)

    async def _replace(self, session: AsyncSession, model: Model, kept: Kept, max_count: int) -> set[str]:
        await self._lock(session, model)
        samples = Samples(session)
        await samples.put(model.id, kept.sha256, kind="live", **_columns(kept))
        ids = await samples.ids(model.id, "live")
        leaving = random.sample(ids, max(0, len(ids) - max_count))  # nosec B311
        gone = await samples.remove(model.id, leaving) if leaving else set()
        self._check_totals(*await samples.totals(model.id))
        return gone

    async def remove(
        self, model: Model, actor: Actor, ids: Sequence[int] | None = None, kind: str | None = None
    ) -> int:
        """Remove these samples, those of one kind, or all; returns how many."""
        async with self._database.transaction() as session:
            addresses = await Samples(session).remove(model.id, ids, kind)
            await actor.note(session, "samples.delete", model.name, {"count": len(addresses)})
        await self.forget(addresses)
        return len(addresses)

    async def forget(self, addresses: Iterable[str]) -> None:
        """Remove the files that no sample needs any more."""
        async with self._writing:
            await self._forget(addresses)

    async def _forget(self, addresses: Iterable[str]) -> None:
        async with self._database.session() as session:
            idle = [sha256 for sha256 in addresses if not await Samples(session).sha256_in_use(sha256)]
        for sha256 in idle:
            await asyncio.to_thread(self.store.remove, sha256)

    async def _write(self, model: Model, kept: Sequence[Kept], actor: Actor) -> Added:
        async with self._database.transaction() as session:
            await self._lock(session, model)
            samples, new = Samples(session), 0
            for one in kept:
                columns = {**_columns(one), "created_by": actor.name}
                new += await samples.put(model.id, one.sha256, kind="uploaded", **columns)
            self._check_totals(*await samples.totals(model.id))
            await actor.note(session, "samples.create", model.name, {"count": new})
        return Added(new, len(kept) - new)

    async def _lock(self, session: AsyncSession, model: Model) -> None:
        if not await Models(session).lock(model.id):
            raise ModelNotFound(f"There is no model {model.name[:64]!r}.")

    def _check_totals(self, count: int, size_bytes: int) -> None:
        caps = self._settings.samples
        if count > caps.max_count:
            raise TooLarge(
                f"The model would have {count} samples; {caps.max_count} is the cap (samples.max_count)."
            )
        if size_bytes > caps.max_bytes:
            raise TooLarge(f"The model's samples would be over {caps.max_bytes} bytes (samples.max_bytes).")

    def _unpack(
        self,
        model: Model,
        received: Received,
        name: str,
        label: str | None,
        labels: str | None,
        kept: list[Kept],
        stop: threading.Event,
    ) -> None:
        told = read_labels(labels) if labels else {}
        if not _is_zip(received.path, name, self._limits().max_files):
            kept.append(self._keep(model, received.path, name or "sample", label or told.get(name)))
            return
        if label is not None:
            raise Unprocessable("`label` is for one sample; put a labels.csv into the zip, or send `labels`.")
        staged = self._artifacts.stage()
        try:
            files = extract(received.path, staged, self._limits(), stop)
            for path, inner, its_label in _labelled(staged, files, told):
                if stop.is_set():
                    raise Stopped
                kept.append(self._keep(model, path, inner, its_label))
        finally:
            self._artifacts.drop(staged)

    def _keep(self, model: Model, path: Path, name: str, label: str | None) -> Kept:
        cap = self._settings.samples.max_sample_bytes
        if path.stat().st_size > cap:
            raise TooLarge(f"The sample {shown(name)} is over {cap} bytes (samples.max_sample_bytes).")
        return self._keep_bytes(model, path.read_bytes(), name, label)

    def _keep_bytes(self, model: Model, data: bytes, name: str, label: str | None) -> Kept:
        settings = self._settings
        media_type = media_type_of(
            data,
            task_class(model.task).modality,
            name,
            max_pixels=settings.inference.max_pixels,
            max_bytes=settings.samples.max_sample_bytes,
        )
        return Kept(self.store.put(data), media_type, len(data), name, label)

    def _limits(self) -> ArchiveLimits:
        store, caps = self._settings.store, self._settings.samples
        return ArchiveLimits(
            max_files=caps.max_count + len(LABEL_FILES),
            max_bytes=caps.max_bytes + _MAX_LABEL_BYTES,
            max_ratio=store.max_compression_ratio,
            min_free_bytes=store.min_free_bytes,
            suffixes=_SUFFIXES,
        )


def _labelled(
    root: Path, files: Sequence[Path], told: Mapping[str, str]
) -> Iterator[tuple[Path, str, str | None]]:
    """Each file of a zip that is a sample, its name there, and its label. Raises Unprocessable."""
    labels = {**_packed_labels(files), **told}
    names = {str(path.relative_to(root)): path for path in files if path.name not in LABEL_FILES}
    missing = next((name for name in labels if name not in names), None)
    if missing is not None:
        raise Unprocessable(f"The labels name {shown(missing)}, which is not in the zip.")
    for name in sorted(names):
        yield names[name], name, labels.get(name)


def _packed_labels(files: Sequence[Path]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for path in files:
        if path.name in LABEL_FILES:
            if path.stat().st_size > _MAX_LABEL_BYTES:
                raise TooLarge(f"{path.name} is larger than {_MAX_LABEL_BYTES} bytes.")
            try:
                labels.update(read_labels(path.read_text(encoding="utf-8-sig")))
            except UnicodeDecodeError as error:
                raise Unprocessable(f"{path.name} is not UTF-8 text.") from error
    return labels


def _columns(kept: Kept) -> dict[str, Any]:
    columns = {"media_type": kept.media_type, "label": kept.label, "size_bytes": kept.size_bytes}
    return {**columns, "name": kept.name[-255:]}


def _is_zip(path: Path, name: str, max_files: int) -> bool:
    """A zip of samples; an .npz is a zip of arrays, and one sample. Without either ending, what is in it tells."""
    with path.open("rb") as file:
        if not file.read(4).startswith(b"PK"):
            return False
    if name.lower().endswith((".zip", ".npz")):
        return name.lower().endswith(".zip")
    with open_zip(path, max_files) as archive:
        names = archive.namelist()
    return not (names and all(name.endswith(".npy") and "/" not in name for name in names))
