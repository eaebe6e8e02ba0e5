"""Whether this machine has what a server needs: files, room, clock, Redis, engines."""

from __future__ import annotations

import asyncio
import shutil
import stat
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

from sqlalchemy import select

from core.access.key_print import key_print
from core.access.sessions import token_life_s
from core.control.findings import Finding, fine
from core.control.nodes import list_nodes, other_keys
from core.database.repositories.nodes import Nodes
from core.database.session import Database
from core.database.tables import Deployment, Version
from core.database.urls import driver_url, sqlite_path
from core.engines.registry import engines_for, list_engines
from core.settings import InvalidSettings, Settings

TIGHT = 0.1
"""A disk with less than this part free is told of."""
CLOCK_S = 1.0
LOCKED_S = 2.0


def secret_files(settings: Settings) -> Iterator[Path]:
    """What only the server's user should read."""
    yield settings.keys_dir
    if settings.keys_dir.is_dir():
        yield from (path for path in settings.keys_dir.rglob("*"))
    database = sqlite_path(driver_url(settings.database_url))
    if database is not None:
        yield from (database.with_name(database.name + end) for end in ("", "-wal", "-shm"))


def permissions(settings: Settings) -> Iterator[Finding]:
    """Secrets that others on this machine can read, or write."""
    found = False
    for path in secret_files(settings):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            found = True
            message = f"{path.name} can be read by other users of this machine."
            yield Finding("permissions", "error", message, partial(_close_to_others, path))
    if not found:
        yield fine("permissions", "keys and database are readable by their owner alone")


async def _close_to_others(path: Path) -> None:
    await asyncio.to_thread(lambda: path.chmod(0o700 if path.is_dir() else 0o600))


def disk(settings: Settings) -> Iterator[Finding]:
    """Room where files are written."""
    for name, path in {"data": settings.data_dir, "store": settings.artifacts_dir.parent}.items():
        if not path.is_dir():
            continue
        usage = shutil.disk_usage(path)
        free = f"{usage.free / (1 << 30):.1f} GiB are free on the disk of the {name} directory"
        if usage.free < settings.store.min_free_bytes:
            yield Finding("disk", "error", f"{free}, less than store.min_free_bytes: uploads are refused.")
        elif usage.free < TIGHT * usage.total:
            yield Finding("disk", "warning", f"{free}, less than a tenth of it.")
        else:
            yield fine("disk", free)
        if settings.store.directory is None:
            return


async def clock(database: Database) -> Finding:
    """Of this machine and of the database."""
    began = time.time()
    async with database.session() as session:
        now = await Nodes(session).now()
    ahead_s = (began + time.time()) / 2 - now.timestamp()
    if abs(ahead_s) > CLOCK_S:
        way = "ahead of" if ahead_s > 0 else "behind"
        return Finding("clock", "error", f"it is {abs(ahead_s):.1f} s {way} the database's: use NTP on both.")
    return fine("clock", f"it is within {abs(ahead_s) * 1000:.0f} ms of the database's")


async def keys(settings: Settings, database: Database) -> Finding:
    """Whether the servers of this database have the same."""
    try:
        mine = await asyncio.to_thread(key_print, settings.keys_dir, token_life_s(settings.access))
    except (InvalidSettings, OSError) as error:
        return Finding("keys", "error", f"they cannot be read: {error}")
    others = other_keys(await list_nodes(database), mine)
    if others:
        message = f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} others: make keys/ the same."
        return Finding("keys", "error", message)
    return fine("keys", "no other server of this database has other keys")


async def redis(settings: Settings) -> Finding:
    """Whether it answers, where it is configured."""
    if settings.redis.url is None:
        return fine("redis", "none is configured")
    try:
        from redis.asyncio import Redis
    except ImportError:
        return Finding("redis", "error", "its client is missing: pip install 'pulvinar[redis]'.")
    client = Redis.from_url(settings.redis.url.get_secret_value())
    try:
        async with asyncio.timeout(LOCKED_S):
            await client.ping()
    except Exception as error:
        return Finding("redis", "error", f"it cannot be reached ({type(error).__name__}).")
    finally:
        await client.aclose()
    return fine("redis", "it answers")


async def engines(database: Database) -> AsyncIterator[Finding]:
    """Those that can be imported, and deployed models that none of them runs."""
    infos = await asyncio.to_thread(list_engines)
    there = [f"{info.name} {info.version or ''}".strip() for info in infos if info.available]
    away = [info.name for info in infos if not info.available]
    message = f"{', '.join(there)}" + (f"; not installed: {', '.join(away)}" if away else "")
    yield fine("engines", message) if there else Finding("engines", "error", "none can be imported.")
    async with database.session() as session:
        query = select(Deployment, Version).join(Version, Version.model_id == Deployment.model_id)
        rows = (await session.execute(query.where(Deployment.running))).all()
    for deployment, version in rows:
        wanted = {int(share["version"]) for share in deployment.spec.get("traffic", ())}
        if version.version in wanted and not await asyncio.to_thread(engines_for, version.format):
            message = f"a deployed model (format {version.format}) has no engine here that runs it."
            yield Finding("engines", "error", message)
