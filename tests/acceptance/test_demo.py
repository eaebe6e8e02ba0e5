"""`make demo`, as far as the other tests do not do the same: what it says where it cannot serve."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT, environment


def test_a_port_that_is_taken_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, str(ROOT / "demo/demo.py"), "--port", port, "--data-dir", str(tmp_path / "data")],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 4
    assert ended.stderr == f"Error: port {port} is taken; choose another one with PORT=…\n"
    assert not ended.stdout
    assert not (tmp_path / "data").exists()
