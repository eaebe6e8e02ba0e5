"""The moments of an upload and of a deployment at which a test may have its process killed.

Nothing happens at any of them unless the environment variable `TEST_KILL_POINT_FILE` names a file, and that file
holds a point's name when it is reached. No setting does it, and no request can.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

POINTS: Final = {
    "upload.begun": "the file of an upload is open, and empty",
    "upload.received": "the upload is whole and on the disk",
    "upload.staged": "it is unpacked and checked, and not at its address yet",
    "upload.published": "its files are at their address, and no row names them yet",
    "upload.written": "its rows are written and not committed",
    "upload.committed": "its rows are committed, and the caller has no answer yet",
    "validation.claimed": "its validation has been taken",
    "validation.checked": "its validation is over, and not written down",
    "validation.finished": "its validation is written down",
    "deploy.written": "what is desired is written and not committed",
    "deploy.committed": "what is desired is committed, and the caller has no answer yet",
    "deploy.loaded": "the new version is loaded and does not serve yet",
    "deploy.swapped": "the new version serves, and the old one is not closed",
    "deploy.observed": "that it serves is written down",
    "remove.written": "a model's rows are deleted and that is not committed",
    "remove.committed": "a model's rows are gone, and its files are not",
    "remove.unnamed": "a model's files have left their address and are on the disk yet",
}

ENVIRONMENT: Final = "TEST_KILL_POINT_FILE"


def reach(name: str) -> None:
    """End this process as `kill -9` does, where a test has armed this point; else cost nothing."""
    file = os.environ.get(ENVIRONMENT)
    if file is not None:
        _die_if_armed(file, name)


def _die_if_armed(file: str, name: str) -> None:
    with contextlib.suppress(FileNotFoundError), open(file, encoding="utf-8") as armed:
        if armed.read() == name:
            os.kill(os.getpid(), signal.SIGKILL)
