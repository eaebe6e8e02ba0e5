"""Engine inputs on their way to a conversion: files between processes, and whether they fit the model."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConversionFailed
from core.optimiser.converted import Tensors


class NpzFeeds:
    """Feeds in files, read one by one and as often as asked; nothing in them is unpickled."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """Yield each file's arrays by name. Raises ConversionFailed."""
        for path in self._paths:
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    yield {name: arrays[name] for name in arrays.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise ConversionFailed("A file of calibration inputs cannot be read; make it anew.") from error


@dataclass(slots=True)
class Bounds:
    """How long feeds may be made for, in seconds, and how many bytes they may have together.

    `cut` says afterwards why there are no more, as the end of a sentence; empty where all came.
    """

    seconds: float
    max_bytes: int
    cut: str = ""

    def of(self, feeds: Iterable[Tensors]) -> Iterator[Tensors]:
        """Yield the feeds, the first in any case, until a bound is reached."""
        until, size_bytes = time.monotonic() + self.seconds, 0
        for number, feed in enumerate(feeds):
            size_bytes += sum(array.nbytes for array in feed.values())
            if number and size_bytes > self.max_bytes:
                self.cut = f"more would take over {self.max_bytes >> 20} MiB"
                return
            if number and time.monotonic() > until:
                self.cut = f"preparing more would take over {self.seconds:.0f} s"
                return
            yield feed


def write_feeds(feeds: Iterable[Tensors], folder: Path) -> list[Path]:
    """Write each feed as `000000.npz` … into `folder`, text as fixed-width strings; returns the files. Blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, feed in enumerate(feeds):
        path = folder / f"{number:06}.npz"
        arrays: dict[str, Any] = {
            name: array.astype(np.str_) if array.dtype.kind == "O" else array for name, array in feed.items()
        }
        np.savez(path, **arrays)
        paths.append(path)
    return paths


def checked(feeds: Iterable[Tensors], inputs: Sequence[Any]) -> Iterator[Tensors]:
    """The feeds, each held against the model's inputs (as ONNX Runtime lists them). Raises ConversionFailed."""
    for number, feed in enumerate(feeds, 1):
        for spec in inputs:
            if spec.name not in feed:
                raise ConversionFailed(f"Calibration sample {number} lacks the model's input {spec.name!r}.")
            _check_shape(number, spec.name, spec.shape, feed[spec.name].shape)
        yield {spec.name: feed[spec.name] for spec in inputs}


def _check_shape(number: int, name: str, wanted: Sequence[Any], shape: tuple[int, ...]) -> None:
    fits = len(wanted) == len(shape) and all(
        not isinstance(want, int) or want < 0 or want == size for want, size in zip(wanted, shape, strict=True)
    )
    if not fits:
        asked = [want if isinstance(want, int) else -1 for want in wanted]
        raise ConversionFailed(
            f"Calibration sample {number} has the shape {list(shape)} for the input {name!r}, and the model takes "
            f"{asked} (-1 is any size); upload samples of that shape."
        )
