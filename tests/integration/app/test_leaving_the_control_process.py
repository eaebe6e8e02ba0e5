"""A worker that can no longer follow the control process ends, and is replaced: it must not serve what was."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_WORKER = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from app.lifespan import _follow
from core.control.follower import Follower
from core.serving.catalogue import Catalogue
from core.tasks.base import MediaLimits

with ThreadPoolExecutor(1) as threads:
    asyncio.run(_follow(Follower(Path(sys.argv[1]), "worker 1", Catalogue(), threads, MediaLimits(), drain_s=1)))
"""


@pytest.mark.parametrize(
    "said", [b"", b'{"k": "status"}\n', b"not JSON\n"], ids=["nothing more", "half a message", "no message"]
)
def test_a_worker_that_cannot_follow_ends(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(tmp_path / "control.sock"))
        control.listen()
        control.settimeout(60)
        worker = subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path / "control.sock")])
        try:
            peer, _ = control.accept()
            with peer:
                peer.sendall(said)
            assert worker.wait(60) == -signal.SIGTERM
        finally:
            worker.kill()
            worker.wait()
