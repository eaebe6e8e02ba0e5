"""Plans: what TensorRT builds of a model for one kind of GPU, in minutes, and may keep.

A plan holds compiled code. One is only read back from the cache if nobody but this user can have written it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from core.engines.cuda import Gpu
from core.errors import LoadFailed
from core.signature import TensorSpec

MAGIC = b"ftrt"
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a plan depends on."""

    gpu: Gpu
    version: str
    """TensorRT's."""
    model_sha256: str
    precision: str
    max_batch: int

    def place(self) -> Path:
        """Where its plan lies in the cache: a folder for the GPU and library, a file for the model."""
        major, minor = self.gpu.capability
        folder = f"{_word(self.gpu.name)}-sm{major}{minor}-tensorrt-{_word(self.version)}"
        return Path(folder) / f"{self.model_sha256}-{self.precision}-{self.max_batch}.plan"


def profile(spec: TensorSpec, max_batch: int) -> Shapes | None:
    """The least, the usual and the largest shape of an input; None where it is fixed.

    The largest batch is the usual one: that is what a GPU is fed with under load. Raises LoadFailed where another
    axis than the first is dynamic, as nobody has said how long it gets.
    """
    if -1 in spec.shape[1:]:
        raise LoadFailed(
            f"The input {spec.name} has dynamic axes besides the batch, {list(spec.shape)}: the engine tensorrt "
            "needs the model exported with fixed ones."
        )
    if not spec.shape or spec.shape[0] != -1:
        return None
    most = (max_batch, *spec.shape[1:])
    return (1, *spec.shape[1:]), most, most


def model_sha256(artifact: Path) -> str:
    """Of the model file, and of the files beside it, which may hold its weights."""
    total = hashlib.sha256()
    others = sorted(path for path in artifact.parent.rglob("*") if path.is_file() and path != artifact)
    for path in (artifact, *others):
        total.update(_sha256(path))
    return total.hexdigest()


def is_plan(artifact: Path) -> bool:
    """Whether the file is a plan itself. Raises OSError."""
    with artifact.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_plan(cache: Path | None, recipe: Recipe) -> bytes | None:
    """The plan of the cache; None where there is none that can be trusted."""
    if cache is None:
        return None
    path = cache / recipe.place()
    try:
        with path.open("rb") as file:
            return file.read() if _is_ours(os.fstat(file.fileno())) and _is_ours(path.parent.stat()) else None
    except OSError:
        return None


def keep_plan(cache: Path | None, recipe: Recipe, plan: bytes) -> None:
    """Write it at once or not at all; a full disk costs only the next load's time."""
    if cache is None:
        return
    path = cache / recipe.place()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(plan)
                file.flush()
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
    except OSError:
        return


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unknown"
