"""What is left of an upload that its caller gives up, with a real store and database."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from core.control.actor import COMMAND_LINE
from core.control.uploads import Told, Uploads
from core.database.session import Database
from core.settings import StoreSettings
from core.store.artifacts import ArtifactStore
from core.store.importer import Importer
from core.store.uploads import Received
from tests.acceptance import onnx_models
from tests.databases import database_url, with_database

__all__ = ["database_url"]
TENSORS = Told(task="tensor")


class SlowStore(ArtifactStore):
    """Publishes once it is let."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, max_bytes=1 << 30, min_free_bytes=0)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def publish_staged(self, staged: Path, sha256: str) -> Path:
        self.begun.set()
        assert self.go_on.wait(30)
        return super().publish_staged(staged, sha256)


async def received(store: ArtifactStore) -> Received:
    async with store.receive() as upload:
        await upload.write(onnx_models.scale(3))
        return await upload.finish()


def uploads_to(database: Database, store: ArtifactStore) -> Uploads:
    return Uploads(database, store, Importer(store, StoreSettings()))


def test_an_upload_that_is_given_up_while_it_waits_for_its_turn_leaves_no_file(
    database_url: str, tmp_path: Path
) -> None:
    async def work(database: Database) -> None:
        store = ArtifactStore(tmp_path / "store", max_bytes=1 << 30, min_free_bytes=0)
        uploads = uploads_to(database, store)
        file = await received(store)
        async with store.changing([file.sha256]):
            adding = asyncio.create_task(uploads.add_model(file, "cat", TENSORS, COMMAND_LINE))
            while not uploads._publishing.locked():
                await asyncio.sleep(0.001)
            adding.cancel()
            await asyncio.wait([adding])
        assert adding.cancelled()
        assert not file.path.exists()

    with_database(database_url, work)


def test_an_upload_that_is_given_up_as_it_is_published_leaves_no_artifact(
    database_url: str, tmp_path: Path
) -> None:
    async def work(database: Database) -> None:
        store = SlowStore(tmp_path / "store")
        uploads = uploads_to(database, store)
        file = await received(store)
        adding: asyncio.Task[Any] = asyncio.create_task(uploads.add_model(file, "cat", TENSORS, COMMAND_LINE))
        await asyncio.to_thread(store.begun.wait, 30)
        adding.cancel()
        await asyncio.sleep(0)
        store.go_on.set()
        await asyncio.wait([adding])
        assert adding.cancelled()
        assert not store.exists(file.sha256)
        assert not any((tmp_path / "store" / "incoming").iterdir())

    with_database(database_url, work)
