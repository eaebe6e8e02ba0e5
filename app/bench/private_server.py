"""A server of the measurement's own: a process that serves one version, on a free port of this machine alone.

It has a data directory of its own, in which the version's files are a link into the store. So what the real
database desires stays as it is, a server that runs on it is not disturbed, and nothing else takes part.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from app.bench.http_client import is_ready
from app.bench.subject import Subject
from core.control.actor import COMMAND_LINE
from core.control.token_changes import create_token
from core.database import migration
from core.database.repositories.deployments import Deployments
from core.database.session import Database
from core.database.tables.base import Base
from core.errors import LoadFailed, PlatformError, Unavailable
from core.setting_sources import load_settings
from core.settings import Settings

START_S, STOP_S = 600.0, 10.0
_EVERY_S = 0.05
_ROOT = Path(__file__).resolve().parents[2]
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from app.bench.server_main import main; "
    "sys.argv[0] = 'bench'; main()"
)


@asynccontextmanager
async def private_server(settings: Settings, subject: Subject, folder: Path) -> AsyncIterator[tuple[str, str]]:
    """A server that serves the subject: its URL, and a token for it. Raises LoadFailed or Unavailable."""
    config = await asyncio.to_thread(_write_config, settings, folder)
    private = load_settings(config, {}, dotenv=folder / "none")
    await asyncio.to_thread(_link_artifacts, private, subject)
    await migration.upgrade(private.database_url)
    database = Database(private.database_url)
    process = None
    try:
        secret, model_id = await _fill(database, subject)
        process = await _start(config, folder)
        url = f"http://127.0.0.1:{private.server.port}"
        await _wait(process, database, model_id, url)
        yield url, secret
    finally:
        if process is not None:
            await asyncio.shield(_stop(process))
        await database.close()


def _write_config(settings: Settings, folder: Path) -> Path:
    """This server's settings in all that its speed depends on, but for places, addresses and rates."""
    values: dict[str, Any] = settings.model_dump(mode="json", exclude={"admin_password", "database"})
    values["data_dir"] = str(folder / "data")
    values["server"] |= {"host": "127.0.0.1", "port": _free_port(), "drain_s": 1, "docs": False}
    values["access"]["token_rate"] = None
    values["inference"]["cache_bytes"] = 0  # the same calls come again and again, and are to be answered anew
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _link_artifacts(private: Settings, subject: Subject) -> None:
    private.data_dir.mkdir(mode=0o700)
    for root in {subject.root, subject.choice.artifact.parent} if subject.derived else {subject.root}:
        link = private.artifacts_dir / root.parent.name / root.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(root.resolve(), target_is_directory=True)


async def _fill(database: Database, subject: Subject) -> tuple[str, int]:
    """The model, its version, its deployment and a token; answers the token's secret and the model's id.

    What its deployment follows goes with it: the search, and what the model was converted to.
    """
    rows = (subject.model, subject.version, subject.optimisation, subject.derived)
    async with database.transaction() as session:
        for row in rows:
            if row is not None:
                session.add(_copy(row))
                await session.flush()
        await Deployments(session).put(subject.model.id, subject.spec, COMMAND_LINE.name)
        _, secret = await create_token(session, {"name": "bench", "models": [subject.model.name]}, COMMAND_LINE)
    return secret, subject.model.id


def _copy(row: Base) -> Base:
    return type(row)(**{column.key: getattr(row, column.key) for column in row.__table__.columns})


async def _start(config: Path, folder: Path) -> Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PULVINAR_")}
    log = await asyncio.to_thread((folder / "server.log").open, "wb")
    with log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _START,
            str(_ROOT),
            "--config",
            str(config),
            cwd=folder,
            env=kept,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which then stops the server
        )


async def _wait(process: Process, database: Database, model_id: int, url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise Unavailable(f"The server that was started to be measured ended with code {process.returncode}.")
        async with database.session() as session:
            seen = await Deployments(session).observed(model_id)
        if any(row.state == "failed" for row in seen):
            raise LoadFailed(next(row.reason for row in seen if row.state == "failed"))
        if any(row.state == "serving" for row in seen) and await _answers(url):
            return
        await asyncio.sleep(_EVERY_S)
    raise Unavailable(f"The server that was started to be measured did not serve within {START_S:g} s.")


async def _answers(url: str) -> bool:
    try:
        return await is_ready(url)
    except PlatformError:
        return False


async def _stop(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
