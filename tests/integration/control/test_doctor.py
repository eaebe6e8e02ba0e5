"""The examination of an installation: what was planted is found, and mended where it can be."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.lifespan import check_task, make_store
from core.control.actor import COMMAND_LINE
from core.control.doctor import Doctor
from core.control.findings import Finding
from core.control.uploads import Told, Uploads
from core.database.repositories.models import Models
from core.database.repositories.samples import Samples
from core.database.repositories.versions import Versions
from core.database.session import Database
from core.settings import DatabaseSettings, RedisSettings, Settings, StoreSettings
from core.store.artifacts import ArtifactStore
from core.store.importer import Importer
from core.store.samples import SampleStore
from tests.acceptance import onnx_models
from tests.databases import bare_database_url, database_url, fresh_database
from tests.servers import run_cli, zip_bytes

__all__ = ["bare_database_url", "database_url"]
MACHINE = ("permissions", "disk", "redis", "database", "clock", "keys", "engines")
STORE = ("versions", "converted forms", "samples", "orphans", "half-done")


@dataclass
class House:
    settings: Settings
    database: Database
    store: ArtifactStore
    uploads: Uploads

    async def add(self, name: str, file: bytes) -> tuple[str, int]:
        """A valid model's address and the id of its version."""
        async with self.store.receive() as upload:
            await upload.write(file)
            received = await upload.finish()
        _, version = await self.uploads.add_model(received, name, Told(), COMMAND_LINE)
        async with self.database.transaction() as session:
            await Versions(session).finish(version.id, "valid", report=[])
        return version.sha256, version.id

    async def examine(self, *, mend: bool = False) -> list[Finding]:
        doctor = Doctor(self.settings, self.store, self.uploads, self.database)
        return [finding async for finding in doctor.examine(mend=mend)]

    async def trouble(self, *, mend: bool = False) -> list[tuple[str, str, str]]:
        """What is not well, but for how full this machine's disk is."""
        found = [one for one in await self.examine(mend=mend) if one.level != "ok" and one.check != "disk"]
        return [(one.check, one.level, one.message) for one in found]


@asynccontextmanager
async def house_at(url: str, folder: Path, **sections: object) -> AsyncIterator[House]:
    settings = Settings(
        data_dir=folder / "data",
        database=DatabaseSettings.model_validate({"url": url}),
        store=StoreSettings(min_free_bytes=0),
        **sections,  # type: ignore[arg-type]
    )
    settings.data_dir.mkdir(exist_ok=True)
    for path in folder.glob("*.db"):
        path.chmod(0o600)
    database, store = Database(url), make_store(settings)
    uploads = Uploads(database, store, Importer(store, settings.store, check_task))
    try:
        yield House(settings, database, store, uploads)
    finally:
        store.close()
        await database.close()


def on(url: str, folder: Path, scenario: Callable[[House], Awaitable[None]], **sections: object) -> None:
    async def run() -> None:
        async with house_at(url, folder, **sections) as house:
            await scenario(house)

    asyncio.run(run())


PACKAGE = zip_bytes({"model.onnx": onnx_models.scale(5), "model.yaml": "task: tensor\n", "notes.txt": "x"})


def test_where_all_is_well_that_is_said_of_each_thing(database_url: str, tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.add("bare", onnx_models.scale(3))
        await house.add("zip", PACKAGE)
        found = await house.examine()
        assert [one for one in found if one.level != "ok" and one.check != "disk"] == []
        assert {one.check for one in found} == {*MACHINE, *STORE}

    on(database_url, tmp_path, scenario)


@pytest.mark.parametrize("package", [onnx_models.scale(3), PACKAGE], ids=["bare", "zip"])
@pytest.mark.parametrize("harm", ["gone", "changed", "more"])
def test_a_version_whose_files_are_not_what_was_uploaded(
    database_url: str, tmp_path: Path, package: bytes, harm: str
) -> None:
    async def scenario(house: House) -> None:
        address, version_id = await house.add("harmed", package)
        await house.add("other", onnx_models.scale(7))
        folder = house.store.path(address)
        if harm == "gone":
            await house.store.remove(address)
        else:
            folder.chmod(0o700)
            path = folder / ("model.onnx" if harm == "changed" else "more.bin")
            path.touch(0o600)
            path.chmod(0o600)
            data = bytearray(path.read_bytes() or b"x")
            data[-1] ^= 1  # one bit
            path.write_bytes(data)
        said = {
            "gone": "its files are missing from the store",
            "changed": "its files are not what was uploaded: model.onnx holds other bytes",
            "more": "its files are not what was uploaded: more.bin was not there",
        }
        expected = [("versions", "error", f"harmed/1: {said[harm]}. Upload it again.")]
        assert await house.trouble() == expected
        assert await house.trouble(mend=True) == expected
        assert await house.trouble() == [], "nobody can deploy it now, which is all that can be done"
        async with house.database.session() as session:
            model = await Models(session).by_name("harmed")
            assert model is not None
            version = await Versions(session).get(model.id, 1)
        assert version is not None
        assert (version.id, version.status, version.report[0]["ok"]) == (version_id, "invalid", False)

    on(database_url, tmp_path, scenario)


def test_what_nobody_needs_is_found_and_removed(database_url: str, tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        kept, _ = await house.add("kept", onnx_models.scale(3))
        orphan = "ab" * 32
        staged = house.store.stage()
        (staged / "model.onnx").write_bytes(b"x")
        await house.store.publish(staged, orphan)
        samples = SampleStore(house.settings.samples_dir, min_free_bytes=0)
        lonely = samples.put(b"nobody's")
        (house.settings.artifacts_dir / "incoming/of-another-release").write_bytes(b"half")
        found = await house.trouble()
        assert found == [
            ("orphans", "warning", f"artifact {orphan[:12]}…: no version needs it."),
            ("orphans", "warning", f"sample file {lonely[:12]}…: no sample needs it."),
            ("half-done", "warning", "1 things in artifacts/incoming belong to processes that are no more."),
        ]
        async with house.store.changing([orphan]):
            assert found[0] not in await house.trouble(), "somebody is just at work on it"
        assert await house.trouble(mend=True) == found
        assert await house.trouble() == []
        assert [*house.store.addresses()] == [kept]
        assert not samples.path(lonely).exists()

    on(database_url, tmp_path, scenario)


def test_temporary_files_of_long_ago_are_removed(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        old, fresh = house.settings.data_dir / "optimising-old", house.settings.data_dir / "optimising-now"
        for folder in (old, fresh):
            folder.mkdir()
            (folder / "x").write_bytes(b"x")
        os.utime(old, (0, 0))
        message = "1 temporary files or folders have not been touched for a day."
        assert await house.trouble(mend=True) == [("half-done", "warning", message)]
        assert not old.exists()
        assert fresh.exists()

    with fresh_database("sqlite", tmp_path) as url:
        on(url, tmp_path, scenario)


def test_a_sample_without_its_file_is_forgotten(database_url: str, tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.add("kept", onnx_models.scale(3))
        async with house.database.transaction() as session:
            model = await Models(session).by_name("kept")
            assert model is not None
            values = {"kind": "uploaded", "media_type": "image/png", "size_bytes": 3}
            await Samples(session).put(model.id, "cd" * 32, **values)
        assert [check for check, _, _ in await house.trouble(mend=True)] == ["samples"]
        assert await house.trouble() == []

    on(database_url, tmp_path, scenario)


def test_secrets_that_others_can_read_are_closed(database_url: str, tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.settings.keys_dir.mkdir(0o700)
        key = house.settings.keys_dir / "jwt.key"
        key.write_bytes(b"s" * 32)
        key.chmod(0o644)
        expected = [("permissions", "error", "jwt.key can be read by other users of this machine.")]
        assert await house.trouble(mend=True) == expected
        assert await house.trouble() == []
        assert key.stat().st_mode & 0o777 == 0o600

    on(database_url, tmp_path, scenario)


def test_a_database_that_is_not_there_yet_is_migrated(bare_database_url: str, tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        expected = [("database", "error", "it holds nothing yet: run.py migrate.")]
        assert await house.trouble() == expected
        assert await house.trouble(mend=True) == expected
        assert await house.trouble() == []

    on(bare_database_url, tmp_path, scenario)


def test_what_cannot_be_reached_is_said(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        found = await house.trouble(mend=True)
        assert [check for check, _, _ in found] == ["redis", "database"]
        assert "cannot be reached" in found[0][2]

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        redis = RedisSettings.model_validate({"url": f"redis://127.0.0.1:{port}/0"})
        on(f"postgresql://x@127.0.0.1:{port}/x", tmp_path, scenario, redis=redis)


def test_the_command(tmp_path: Path) -> None:
    folder, data = tmp_path, tmp_path / "data"
    assert run_cli("--data-dir", str(data), "migrate", cwd=folder).returncode == 0
    variables = {"PULVINAR_SERVER__PORT": "0"}
    done = run_cli("--data-dir", str(data), "doctor", cwd=folder, variables=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line[0] in "✓!" for line in lines), lines
    assert "✓ orphans: the store holds nothing that nobody needs" in lines
    (data / "pulvinar.db").chmod(0o644)
    done = run_cli("--data-dir", str(data), "doctor", "--json", "--quick", cwd=folder, variables=variables)
    assert done.returncode == 1
    assert '"check": "permissions", "level": "error"' in done.stdout
