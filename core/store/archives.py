from __future__ import annotations

import stat
import threading
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from core.errors import InvalidPackage, TooLarge
from core.store.disk import Stopped, require_room, storage_errors
from core.store.paths import check_member, member_key, shown
from core.store.zip_reader import broken_zip_errors, open_zip

ALLOWED_SUFFIXES: Final = (
    *(".onnx", ".onnx_data", ".xml", ".pt", ".pt2", ".plan", ".bin", ".data", ".weights"),
    *(".yaml", ".yml", ".txt", ".json", ".md"),
)
TORCH_SUFFIXES: Final = (".pt", ".pt2")
ZIP_SUFFIXES: Final = (*TORCH_SUFFIXES, ".npz")
"""Of files that are zips themselves. They are not unpacked here."""
_ALLOWED_NAMES: Final = frozenset({"license", "notice", "readme"})
_ARCHIVE_SUFFIXES: Final = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".whl", ".jar")
_ARCHIVE_HEADS: Final = (b"PK\x03\x04", b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_CHUNK_BYTES: Final = 1 << 20
_RATIO_GRACE_BYTES: Final = 1 << 20
"""Small files of text may shrink by any ratio."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What a zip may unpack to: files, bytes in total, unpacked to packed ratio; and disk space to leave free."""

    max_files: int
    max_bytes: int
    max_ratio: float
    min_free_bytes: int = 0
    suffixes: tuple[str, ...] = ALLOWED_SUFFIXES
    """Of the files that it may hold; `.npz`, a zip itself, is an archive unless it is among them."""


def extract(archive: Path, target: Path, limits: ArchiveLimits, stop: threading.Event | None = None) -> list[Path]:
    """Unpack a package into the empty directory `target` and return the files.

    One folder around everything is left out. Nothing is believed that the zip says of itself: names are checked,
    bytes are counted as they come out. Raises InvalidPackage, TooLarge, StorageFull, and Stopped once `stop` is
    set; what was written by then is the caller's to remove. Blocks.
    """
    with open_zip(archive, limits.max_files) as opened, storage_errors():
        members = _plan(opened.infolist(), limits.suffixes)
        budget = _Budget(limits, archive.stat().st_size, target, stop or threading.Event())
        return [_unpack(opened, info, target / path, budget) for info, path in members]


def _plan(
    infos: Iterable[zipfile.ZipInfo], suffixes: tuple[str, ...]
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    members = []
    for info in infos:
        _check_kind(info)
        path = check_member(info.orig_filename.removesuffix("/"))
        if not info.is_dir() and not _is_litter(path):
            _check_suffix(path, suffixes)
            members.append((info, path))
    if not members:
        raise InvalidPackage("The zip holds no files; put model.yaml and the model into it.")
    _check_distinct([path for _, path in members])
    return _without_common_folder(members)


def _check_kind(info: zipfile.ZipInfo) -> None:
    name = shown(info.orig_filename)
    if info.flag_bits & 0x1:
        raise InvalidPackage(f"The zip's file {name} is encrypted; make the zip without a password.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise InvalidPackage(f"The zip's file {name} is a symbolic link; put the file itself in its place.")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidPackage(f"The zip's file {name} is a device, pipe or socket; leave it out.")
    if info.compress_type not in _METHODS:
        raise InvalidPackage(f"The zip's file {name} is compressed in an unusual way; use plain zip (deflate).")


def _check_suffix(path: PurePosixPath, suffixes: tuple[str, ...]) -> None:
    name = path.name.lower()
    if name.endswith(_ARCHIVE_SUFFIXES):
        raise InvalidPackage(f"The zip holds another archive, {shown(str(path))}; put its files in directly.")
    if not name.endswith(suffixes) and name not in _ALLOWED_NAMES:
        allowed = ", ".join(suffixes)
        raise InvalidPackage(f"The zip holds {shown(str(path))}; it may hold {allowed} only: leave it out.")


def _check_distinct(paths: list[PurePosixPath]) -> None:
    keys = set()
    for path in paths:
        if member_key(path) in keys:
            raise InvalidPackage(f"The zip holds {shown(str(path))} twice (capitals do not count); keep one.")
        keys.add(member_key(path))
    for path in paths:
        if any(member_key(parent) in keys for parent in path.parents):
            raise InvalidPackage(f"In the zip a folder on the way to {shown(str(path))} is a file as well.")


def _is_litter(path: PurePosixPath) -> bool:
    """What desktops put into zips unasked."""
    return path.parts[0] == "__MACOSX" or path.name in (".DS_Store", "Thumbs.db", "desktop.ini")


def _without_common_folder(
    members: list[tuple[zipfile.ZipInfo, PurePosixPath]],
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    folders = {path.parts[0] if len(path.parts) > 1 else "" for _, path in members}
    if len(folders) > 1 or "" in folders:
        return members
    return [(info, PurePosixPath(*path.parts[1:])) for info, path in members]


class _Budget:
    """Counts what really comes out, over the whole archive and for each file."""

    def __init__(self, limits: ArchiveLimits, archive_bytes: int, target: Path, stop: threading.Event) -> None:
        self._limits = limits
        self._archive_bytes = archive_bytes
        self._target = target
        self._stop = stop
        self._total = 0

    def expects(self, info: zipfile.ZipInfo) -> bool:
        """Whether this file may be a zip itself; what it holds is for others to look at."""
        suffix = PurePosixPath(info.orig_filename.lower()).suffix
        return suffix in ZIP_SUFFIXES and suffix in self._limits.suffixes

    def spend(self, info: zipfile.ZipInfo, chunk_bytes: int, file_bytes: int) -> None:
        """Account for the next chunk before it is written; `file_bytes` is the file's size with it."""
        if self._stop.is_set():
            raise Stopped
        self._total += chunk_bytes
        if self._total > self._limits.max_bytes:
            raise TooLarge(
                f"The zip unpacks to more than {self._limits.max_bytes} bytes (store.max_unpacked_bytes)."
            )
        self._check_ratio(file_bytes, info.compress_size, info.orig_filename)
        # Entries may share the same packed bytes; the archive as a whole cannot.
        self._check_ratio(self._total, self._archive_bytes, info.orig_filename)
        require_room(self._target, chunk_bytes, self._limits.min_free_bytes)

    def _check_ratio(self, unpacked: int, packed: int, name: str) -> None:
        if unpacked > _RATIO_GRACE_BYTES and unpacked > self._limits.max_ratio * max(1, packed):
            raise TooLarge(
                f"The zip's file {shown(name)} unpacks to more than {self._limits.max_ratio:g} times its size "
                "(store.max_compression_ratio), as a zip bomb does; store it uncompressed (zip -0) if it is real."
            )


def _unpack(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, budget: _Budget) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with broken_zip_errors(), opened.open(info) as source, path.open("xb") as sink:
        _copy(source, sink, info, budget)
    return path


def _copy(source: IO[bytes], sink: IO[bytes], info: zipfile.ZipInfo, budget: _Budget) -> None:
    file_bytes = 0
    while chunk := source.read(_CHUNK_BYTES):
        if not file_bytes and chunk.startswith(_ARCHIVE_HEADS) and not budget.expects(info):
            raise InvalidPackage(
                f"The zip holds another archive, {shown(info.orig_filename)}; put its files in directly."
            )
        file_bytes += len(chunk)
        budget.spend(info, len(chunk), file_bytes)
        sink.write(chunk)
