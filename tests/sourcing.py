"""A fetcher on a folder of its own, and files that look like models."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from core.settings import SourceSettings
from core.store.artifacts import ArtifactStore
from core.store.sources.cache import ModelsCache
from core.store.sources.fetcher import Fetched, Fetcher
from core.store.sources.source import parse_source

MAX_BYTES = 4 << 20


def blob(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that no two seeds share."""
    return random.Random(seed).randbytes(size_bytes)


def cache_of(folder: Path, settings: SourceSettings) -> ModelsCache:
    """The cache below `folder`."""
    return ModelsCache(folder / "models_cache", max_bytes=settings.cache_bytes, min_free_bytes=0)


def fetch(
    folder: Path, source: str, *, told: list[tuple[int, int | None]] | None = None, **options: Any
) -> tuple[Fetched, bytes]:
    """Fetch a source with these settings; answers it and the bytes of the upload.

    `task` and `manifest` are the caller's.
    """
    beside = {name: options.pop(name, None) for name in ("task", "manifest")}
    settings = SourceSettings(**{"stall_s": 5, **options})

    async def run() -> tuple[Fetched, bytes]:
        store = ArtifactStore(folder / "artifacts", max_bytes=MAX_BYTES, min_free_bytes=0)
        fetcher = Fetcher(settings, cache_of(folder, settings), store, max_bytes=MAX_BYTES, retry_s=0.001)
        parsed = parse_source(source)
        fetcher.check(parsed)
        steps = told if told is not None else []
        fetched = await fetcher.fetch(parsed, lambda here, total: steps.append((here, total)), **beside)
        return fetched, fetched.received.path.read_bytes()

    return asyncio.run(run())
