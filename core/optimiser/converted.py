"""What goes into a conversion and what comes out of it; loads no library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.errors import ConversionFailed

Tensors = Mapping[str, np.ndarray[Any, Any]]
HINT: Final = "pulvinar[optimise]"


@dataclass(frozen=True, slots=True)
class Work:
    """One conversion to be done: the model file, an empty folder for the result, and engine inputs.

    `feeds` yields one dict a sample batch (input name -> array as the engine gets it); it can be gone through
    more than once where it is a sequence. `options` are the conversion's own and have defaults.
    """

    source: Path
    into: Path
    feeds: Iterable[Tensors] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def option(self, name: str, default: Any) -> Any:
        """An option, or its default."""
        value = self.options.get(name)
        return default if value is None else value


@dataclass(frozen=True, slots=True)
class Converted:
    """The new model: its main file, its format as engines name it, and how it came to be (JSON's types only)."""

    path: Path
    format: str
    notes: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As it goes between processes."""
        return {"path": str(self.path), "format": self.format, "notes": self.notes}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Converted:
        """The inverse of `to_json`."""
        return cls(Path(value["path"]), str(value["format"]), dict(value["notes"]))


@dataclass(frozen=True, slots=True)
class Conversion:
    """One way to turn a model into another: from `source_format` to `format`.

    `calibrated` ones need feeds; `lossy` ones change answers and have to be judged. `make` blocks.
    """

    name: str
    about: str
    source_format: str
    format: str
    precision: str
    calibrated: bool
    lossy: bool
    make: Callable[[Work], Converted]


def versions_of(*packages: str) -> dict[str, str]:
    """The installed versions of these packages, for the notes; those that are absent are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def missing(library: str, hint: str = HINT) -> ConversionFailed:
    """The error for a library that is not installed."""
    return ConversionFailed(f"This conversion needs {library}; install it with pip install '{hint}'.")
