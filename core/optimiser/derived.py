"""Converted forms of versions: made once, kept in the store, found again by how they were made."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.database.tables import DerivedArtifact, Version
from core.errors import ConversionFailed, NotFound
from core.optimiser.confined import DEFAULT_LIMITS, ConvertLimits
from core.optimiser.convert_child import ConvertJob, run_conversion
from core.optimiser.converted import Converted
from core.store.artifacts import ArtifactStore
from core.store.manifest import manifest_from_json

_BLOCK_BYTES: Final = 1 << 20


class Derived:
    """The derived artifacts of all versions. They go with their version, and are never uploads or versions."""

    def __init__(self, database: Database, store: ArtifactStore, limits: ConvertLimits = DEFAULT_LIMITS) -> None:
        self._database = database
        self._store = store
        self._limits = limits
        self._making = asyncio.Lock()

    async def get_or_make(
        self,
        version: Version,
        conversion: str,
        feeds: Sequence[Path] = (),
        *,
        options: Mapping[str, Any] | None = None,
        calibration: Mapping[str, Any] | None = None,
        by: str = "",
    ) -> DerivedArtifact:
        """The version in that form; made now where it was not made in just this way before, or its files are gone.

        `calibration` says what the feeds are (`{"samples": [ids], "synthetic": …}`) and is part of the recipe.
        Raises ConversionFailed, StorageFull.
        """
        recipe = _recipe(version, conversion, options, calibration)
        async with self._making:
            async with self._database.session() as session:
                known = await DerivedArtifacts(session).find(version.id, _key(recipe))
            if known is not None and await asyncio.to_thread(self._store.exists, known.sha256):
                return known
            return await self._make(version, recipe, feeds, by)

    async def rebuild(self, artifact_id: int, feeds: Sequence[Path] = (), *, by: str = "") -> DerivedArtifact:
        """Make one anew by its recipe, as after a library was updated. Raises NotFound, ConversionFailed."""
        async with self._database.session() as session:
            known = await DerivedArtifacts(session).get(artifact_id)
            version = await session.get(Version, known.version_id) if known is not None else None
        if known is None or version is None:
            raise NotFound("There is no such derived artifact.")
        recipe = {name: known.recipe.get(name) for name in ("source", "conversion", "options", "calibration")}
        async with self._making:
            return await self._make(version, recipe, feeds, by)

    async def list(self, version_id: int) -> Sequence[DerivedArtifact]:
        """All of a version."""
        async with self._database.session() as session:
            return await DerivedArtifacts(session).list([version_id])

    async def remove(self, artifact_id: int) -> None:
        """Remove one with its files. Raises NotFound."""
        async with self._making:
            async with self._database.session() as session:
                found = await DerivedArtifacts(session).get(artifact_id)
            if found is None:
                raise NotFound("There is no such derived artifact.")
            async with self._store.changing([found.sha256]):
                async with self._database.transaction() as session:
                    known = await DerivedArtifacts(session).get(artifact_id)
                    if known is None:
                        raise NotFound("There is no such derived artifact.")
                    await DerivedArtifacts(session).remove(known)
                await self._forget(found.sha256)

    def path(self, artifact: DerivedArtifact) -> Path:
        """The model file that an engine loads."""
        return self._store.path(artifact.sha256) / artifact.model

    async def _make(
        self, version: Version, recipe: Mapping[str, Any], feeds: Sequence[Path], by: str
    ) -> DerivedArtifact:
        source = self._store.path(version.sha256) / (manifest_from_json(version.manifest).model or "model.onnx")
        if not await asyncio.to_thread(source.is_file):
            raise ConversionFailed("The version's files are missing from the store; upload it again.")
        staged = await asyncio.to_thread(self._store.stage)
        try:
            job = ConvertJob(recipe["conversion"], source, staged, feeds, recipe["options"] or {})
            made = await run_conversion(job, self._limits)
            sha256, size_bytes = await asyncio.to_thread(_digest, staged)
            async with self._store.changing([sha256]):
                row, replaced = await self._keep(version, recipe, made, staged, sha256, size_bytes, by)
        finally:
            await asyncio.to_thread(self._store.drop, staged)
        if replaced is not None:
            async with self._store.changing([replaced]):
                await self._forget(replaced)
        return row

    async def _keep(
        self,
        version: Version,
        recipe: Mapping[str, Any],
        made: Converted,
        staged: Path,
        sha256: str,
        size_bytes: int,
        by: str,
    ) -> tuple[DerivedArtifact, str | None]:
        """Publish it; the row, and the address of what it replaces."""
        try:
            await self._store.publish(staged, sha256)
            async with self._database.transaction() as session:
                return await DerivedArtifacts(session).put(
                    version.id,
                    _key(recipe),
                    conversion=recipe["conversion"],
                    sha256=sha256,
                    model=made.path.name,
                    format=made.format,
                    size_bytes=size_bytes,
                    recipe={**recipe, "notes": made.notes},
                    made_by=by,
                )
        except BaseException:
            await self._forget(sha256)
            raise

    async def _forget(self, sha256: str) -> None:
        async with self._database.session() as session:
            if await Versions(session).sha256_in_use(sha256):
                return
        await self._store.remove(sha256)


def _recipe(
    version: Version,
    conversion: str,
    options: Mapping[str, Any] | None,
    calibration: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "source": version.sha256,
        "conversion": conversion,
        "options": dict(options or {}),
        "calibration": dict(calibration or {}),
    }


def _key(recipe: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _digest(folder: Path) -> tuple[str, int]:
    """SHA-256 over names, sizes and bytes of the files in a folder, and how many bytes they have."""
    digest, total = hashlib.sha256(b"pulvinar derived artifact\n"), 0
    for path in sorted(folder.iterdir()):
        size_bytes = path.stat().st_size
        digest.update(f"{path.name}\0{size_bytes}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        total += size_bytes
    return digest.hexdigest(), total
