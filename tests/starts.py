"""Starts of `run.py` that take a tenth of a second: forks of a process that has loaded it already.

What a start does is all done, from the command line to the last handler at exit; only the imports are shared.
Where they matter (`tests/acceptance/test_first_light.py`, say), a process is started in full: `whole`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

ZYGOTE = Path(__file__).resolve().with_name("zygote.py")
START_S = 60.0


class Start:
    """One run of `run.py`, with as much of `subprocess.Popen` as is needed."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes],
        stderr: IO[bytes],
    ) -> None:
        job = json.dumps({"arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}).encode()
        self._told, tells = socket.socketpair()
        self._lines = b""
        self.returncode: int | None = None
        with tells, open(os.devnull, "rb") as nothing:
            given = (stdin or nothing).fileno()
            socket.send_fds(_zygote(), [job], [given, stdout.fileno(), stderr.fileno(), tells.fileno()])
        assert self._hear(1, START_S), "no process was started"
        self.pid = int(self._lines.split(b"\n")[0])

    def poll(self) -> int | None:
        """The exit code once it has ended; negative for a signal."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("run.py", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has, and that is not heard of yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._hear(2, timeout):
            self.returncode = int(self._lines.split(b"\n")[1])
            self._told.close()
        return self.returncode

    def _hear(self, lines: int, timeout: float | None) -> bool:
        """Wait for so many lines in all."""
        while self._lines.count(b"\n") < lines:
            if not select.select([self._told], [], [], timeout)[0]:
                return False
            heard = self._told.recv(64)
            assert heard, "the process that starts others has died"
            self._lines += heard
        return True


@cache
def _zygote() -> socket.socket:
    """The socket of this process's zygote, which ends when it is closed."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        subprocess.run([sys.executable, str(ZYGOTE), str(its.fileno())], pass_fds=[its.fileno()], check=True)
    atexit.register(ours.close)
    return ours
