"""What is asked of a server, in no server's words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks import models

Kind = Literal["tiny", "classify"]


@dataclass(frozen=True)
class Workload:
    """A name for the tables, the kind of work, and the photo where there is one."""

    name: str
    kind: Kind
    photo: Path | None = None

    @property
    def jpeg(self) -> bytes:
        """The photo's bytes."""
        assert self.photo is not None
        return self.photo.read_bytes()


@dataclass(frozen=True)
class Call:
    """One POST in a server's own words."""

    path: str
    headers: dict[str, str]
    body: bytes


TINY = Workload("tiny", "tiny")


def photo(width: int, height: int) -> Workload:
    """A JPEG of that size, to be classified."""
    return Workload(f"jpeg-{width}x{height}", "classify", models.jpeg(width, height))
