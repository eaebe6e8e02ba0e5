"""A process that has loaded `run.py` and forks for each start of it: see `tests.starts`, which alone runs it.

Its argument is the number of a socket. Each message there is a start: JSON with `arguments`, `cwd` and `env`, and
four descriptors: standard input, output and error, and where to write the process's number and later its exit
code, a line each. It ends when the socket does.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# What a server and most commands load at their starts; no library of an engine, which no server may load.
LOADED = (
    "run",
    "alembic.command",
    "alembic.runtime.migration",
    "app.control_process",
    "app.server",
    "asyncpg",
    "core.access.bootstrap",
    "core.database.migration",
    "sqlalchemy.dialects.postgresql",
    "uvloop",
)
MAX_MESSAGE = 1 << 17


class Zygote:
    """Forks, and tells how the forks ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._living: dict[int, int] = {}
        """Where to tell the end of a process, by its number."""
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def run(self) -> dict[str, Any] | None:
        """Fork until the socket ends. In a fork, answers what it is to do; None in the process itself."""
        while True:
            ready, _, _ = select.select([self._control, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self._control in ready:
                message, fds, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 4)
                if not message:
                    return None
                if self._fork(fds):
                    job: dict[str, Any] = json.loads(message)
                    return job

    def _fork(self, fds: list[int]) -> bool:
        assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1, "only one thread can be forked"
        pid = os.fork()
        if pid == 0:
            self._become_a_start(fds)
            return True
        for fd in fds[:3]:
            os.close(fd)
        self._living[pid] = fds[3]
        os.write(fds[3], b"%d\n" % pid)
        return False

    def _become_a_start(self, fds: list[int]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number)
        self._control.close()
        for fd in (*fds, self._woken, self._wake, *self._living.values()):
            os.close(fd)

    def _reap(self) -> None:
        while self._living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            told = self._living.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # where nobody waits for it any more
                os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
            os.close(told)


def main() -> None:
    """Serve the socket; in a fork, run `run.py`."""
    control = socket.socket(fileno=int(sys.argv[1]))
    if os.fork():  # so that it is no child of the tests, some of which look whether they have any
        os._exit(0)
    sys.path.insert(0, str(ROOT))
    for name in LOADED:
        import_module(name)
    gc.collect()
    gc.freeze()
    job = Zygote(control).run()
    if job is None:
        return
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = [str(ROOT / "run.py"), *job["arguments"]]
    import run

    run.main()


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    main()
