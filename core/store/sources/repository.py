"""What a source turned out to hold, whatever stands behind it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from core.errors import BadRequest, SourceNotFound
from core.store.paths import shown

Progress = Callable[[int, int | None], None]
"""Told the bytes here so far and those there will be, where that is known."""

PREFERRED: Final = ("onnx/model.onnx", "model.onnx")
_LISTED: Final = 8


class Repository(Protocol):
    """Files by their path, with their sizes in bytes, to be had one by one."""

    files: Mapping[str, int]
    task: str | None
    """What the source says the model is for, in the words of the platform's tasks where it has one."""

    async def prepare(self, names: tuple[str, ...], on_progress: Progress) -> None:
        """Hear which files will be asked for. Raises TooLarge, StorageFull, SourceUnavailable."""

    async def get(self, name: str) -> Path:
        """A file, whole and checked, on the disk. Raises SourceUnavailable, SourceNotFound, Unprocessable."""


def choose_model(files: Mapping[str, int], asked: str | None) -> str:
    """The model's file: the one asked for, or the usual one, or the only one.

    Raises SourceNotFound, with names that are near, and BadRequest, with those there are to choose from.
    """
    if asked is not None:
        return _asked(files, asked)
    models = sorted(name for name in files if name.endswith(".onnx"))
    usual = [name for name in PREFERRED if name in files]
    if usual or len(models) == 1:
        return (usual or models)[0]
    if not models:
        raise SourceNotFound("The source holds no .onnx file; export its model to ONNX, or take another source.")
    raise BadRequest(f"The source holds several models: {_list(models)}. Name one, as in hf:org/name/{models[0]}.")


def companions(files: Mapping[str, int], model: str) -> tuple[str, ...]:
    """The files of a model's external data, by the names that exporters give them."""
    path = PurePosixPath(model)
    names = {f"{path.name}_data", f"{path.name}.data", f"{path.stem}.data", f"{path.stem}.bin"}
    beside = (str(path.with_name(name)) for name in sorted(names))
    return tuple(name for name in beside if name in files and name != model)


def nearest(files: Mapping[str, int], model: str, name: str) -> str | None:
    """The file called `name` in the model's own folder or the next one around it."""
    for folder in PurePosixPath(model).parents:
        path = str(folder / name)
        if path in files:
            return path
    return None


def _asked(files: Mapping[str, int], asked: str) -> str:
    if asked in files:
        return asked
    base = PurePosixPath(asked).name
    near = [name for name in files if PurePosixPath(name).name == base]
    near += [name for name in difflib.get_close_matches(asked, files, _LISTED, 0.5) if name not in near]
    there_is = f"near it are {_list(near)}" if near else f"it holds {_list(sorted(files))}"
    raise SourceNotFound(f"The source holds no file {shown(asked)}; {there_is}.")


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(shown(name) for name in names[:_LISTED]) or "nothing") + more
