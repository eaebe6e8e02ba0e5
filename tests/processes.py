"""The real process table, as tests of crashes look at it."""

from __future__ import annotations

import contextlib

import psutil

from tests.servers import RunningServer, wait_until


def family(server: RunningServer) -> list[psutil.Process]:
    """The server and all its descendants that are alive."""
    return [one for one in (psutil.Process(server.process.pid), *_descendants(server)) if alive(one)]


def hosts(server: RunningServer) -> list[psutil.Process]:
    """Its engine hosts."""
    return _running(server, "core.control.host_main")


def workers(server: RunningServer) -> list[psutil.Process]:
    """Its HTTP workers, oldest first."""
    return sorted(_running(server, "app.worker"), key=lambda one: one.create_time())


def the_host(server: RunningServer) -> psutil.Process:
    """Its only engine host, once there is just one."""

    def look() -> psutil.Process | None:
        found = hosts(server)
        return found[0] if len(found) == 1 else None

    return wait_until("One host", look)


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that only waits to be reaped does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def wait_gone(processes: list[psutil.Process], timeout_s: float = 10) -> None:
    """Wait for the end of all of them."""
    wait_until(f"The end of {processes}", lambda: not any(map(alive, processes)), timeout_s)


def _running(server: RunningServer, module: str) -> list[psutil.Process]:
    found = []
    for process in _descendants(server):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(module in part for part in process.cmdline()) and alive(process):
                found.append(process)
    return found


def _descendants(server: RunningServer) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(server.process.pid).children(recursive=True)
    return found
