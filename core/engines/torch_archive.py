"""The zip that PyTorch writes, read without PyTorch.

PyTorch's own reader must see in it what was looked at here, so it has to be plain: one folder, each record once,
nothing before the first record or behind the last. Sources: pytorch caffe2/serialize/inline_container.h (the zip),
torch/export/pt2_archive/constants.py (the records of an exported program).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Final, Literal

from core.errors import LoadFailed

Kind = Literal["torchscript", "pt2"]

_END_BYTES: Final = 22
_END_MAGIC: Final = b"PK\x05\x06"
_MAX_TEXT_BYTES: Final = 256 << 20
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
_DAMAGED: Final = "The file is no whole PyTorch archive: it is cut short or damaged; export or copy it again."


class TorchArchive:
    """An archive opened for reading: records by name, without the folder around all of them. Close it."""

    def __init__(self, path: Path) -> None:
        """Raises LoadFailed when it is damaged or not plain."""
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise LoadFailed(_DAMAGED) from error
        try:
            self._folder = _only_folder(self._zip)
            _check_plain(path, self._zip)
        except BaseException:
            self._zip.close()
            raise

    def names(self) -> list[str]:
        """Every record."""
        return [name[len(self._folder) :] for name in self._zip.namelist()]

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """A whole record. Raises LoadFailed when it is missing, damaged or larger than `max_bytes`."""
        try:
            info = self._zip.getinfo(self._folder + name)
            if max_bytes is not None and info.file_size > max_bytes:
                raise LoadFailed(f"The archive's {name[:80]} is larger than {max_bytes} bytes.")
            return self._zip.read(info)
        except KeyError as error:
            raise LoadFailed(f"The archive has no {name[:80]}; export the model again.") from error
        except _BROKEN as error:
            raise LoadFailed(_DAMAGED) from error

    def text(self, name: str) -> str:
        """A record of at most 256 MiB as text. Raises LoadFailed."""
        try:
            return self.read(name, _MAX_TEXT_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            raise LoadFailed(f"The archive's {name[:80]} is not text; export the model again.") from error

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def kind_of(path: Path) -> Kind:
    """What the archive holds. Raises LoadFailed, also for weights alone, which are a pickle."""
    with TorchArchive(path) as archive:
        names = set(archive.names())
        if "archive_format" in names:
            return "pt2"
        if {"data.pkl", "constants.pkl", "version"} <= names and any(name.startswith("code/") for name in names):
            return "torchscript"
    raise LoadFailed(
        "The file is neither TorchScript nor an exported program; what torch.save writes is not loaded: a pickle."
    )


def _only_folder(opened: zipfile.ZipFile) -> str:
    folders = {name.partition("/")[0] for name in opened.namelist()}
    if len(folders) != 1 or any("/" not in name for name in opened.namelist()):
        raise LoadFailed("A PyTorch archive keeps all its records in one folder, and this one does not.")
    return f"{folders.pop()}/"


def _check_plain(path: Path, opened: zipfile.ZipFile) -> None:
    names = [name.casefold() for name in opened.namelist()]
    with path.open("rb") as file:
        begins = file.read(2) == b"PK"
        file.seek(-_END_BYTES, 2)
        ends = file.read(4) == _END_MAGIC
    if len(names) != len(set(names)) or not begins or not ends or opened.comment:
        raise LoadFailed("The archive holds a record twice, or more than its records; export the model again.")
    if any(info.orig_filename != info.filename or info.flag_bits & 0x1 for info in opened.infolist()):
        raise LoadFailed("The archive holds records with odd names, or encrypted ones; export the model again.")
