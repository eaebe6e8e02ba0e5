from __future__ import annotations

import errno
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.errors import InvalidPackage, TooLarge

_TAIL_BYTES: Final = 1 << 17
"""Where a zip's end record is looked for; more than its comment can take."""
_ENTRY_BYTES: Final = 1024
"""Room in the directory for one file's names and fields, on average."""

DAMAGED: Final = "The zip is damaged or cut short; make it anew and upload it again."
# NotImplementedError and RuntimeError are zipfile's words for odd compression and for encryption.
_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


class _CarefulFile(io.FileIO):
    """A file that refuses to be read in one huge piece: `zipfile` takes a whole directory, however large."""

    def __init__(self, path: Path, max_read_bytes: int) -> None:
        super().__init__(path, "rb")
        self._max_read_bytes = max_read_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        """As FileIO, within the cap. Raises TooLarge."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > self._max_read_bytes:
            raise TooLarge("The zip lists more files than a package may hold (store.max_archive_files).")
        return super().read(size) or b""


@contextmanager
def open_zip(path: Path, max_files: int) -> Iterator[zipfile.ZipFile]:
    """A zip opened for reading. Raises InvalidPackage when it is damaged, TooLarge for too many files."""
    max_read_bytes = _TAIL_BYTES + max_files * _ENTRY_BYTES
    with broken_zip_errors(), _CarefulFile(path, max_read_bytes) as file, zipfile.ZipFile(file) as archive:
        count = len(archive.filelist)
        if count > max_files:
            raise TooLarge(f"The zip holds {count} files, the cap is {max_files} (store.max_archive_files).")
        yield archive


@contextmanager
def broken_zip_errors() -> Iterator[None]:
    """Turn what `zipfile` raises for a damaged archive into InvalidPackage."""
    try:
        yield
    except _BROKEN as error:
        raise InvalidPackage(DAMAGED) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a seek to before the file's start
            raise
        raise InvalidPackage(DAMAGED) from error
