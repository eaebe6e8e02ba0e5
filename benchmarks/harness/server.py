"""A server as a process group of its own: pinned, waited for, measured, and ended with all its children."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

import psutil

from benchmarks.harness.places import ROOT, scratch


class DidNotStart(Exception):
    """A server that never became ready; the message is the last thing it said."""


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def pinned(command: list[str], cores: Iterable[int] | None) -> list[str]:
    """The command held to some cores; None leaves it all of them."""
    if cores is None:
        return command
    taskset = shutil.which("taskset")
    if taskset is None:
        raise SystemExit("Benchmarks need `taskset` (package util-linux).")
    return [taskset, "-c", ",".join(str(core) for core in cores), *command]


def last_words(said: str, lines: int = 1) -> str:
    """The last lines that hold words, in one line; boxes drawn around them are left out."""
    kept = [line.strip(" │|") for line in said.splitlines() if any(letter.isalnum() for letter in line)]
    return " | ".join(kept[-lines:])[:500] or "it said nothing"


class Server:
    """A running server; a context manager that leaves nothing behind."""

    def __init__(
        self,
        name: str,
        command: list[str],
        port: int,
        env: dict[str, str],
        cores: Iterable[int] | None,
        cwd: Path = ROOT,
    ) -> None:
        self.name, self.port = name, port
        self.log = scratch("logs") / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                pinned(command, cores),
                cwd=cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self, path: str, timeout_s: float = 90) -> float:
        """Poll until `path` answers 2xx; returns the seconds since this call. Raises DidNotStart."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s:
            if self.process.poll() is not None:
                raise DidNotStart(f"ended with status {self.process.returncode}: {self.last_words()}")
            with suppress(OSError, http.client.HTTPException):
                if 200 <= self.get(path) < 300:
                    return time.monotonic() - began
            time.sleep(0.02)
        raise DidNotStart(f"not ready within {timeout_s:.0f} s: {self._why_not(path)}")

    def get(self, path: str) -> int:
        """Status of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def _why_not(self, path: str) -> str:
        """What the readiness check answers, where it answers at all, or else the log's end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            answer = connection.getresponse()
            return f"{answer.status} {answer.read()[:300].decode(errors='replace')}"
        return self.last_words()

    def post(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body of a POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def processes(self) -> list[psutil.Process]:
        """The server and all its descendants."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def rss_bytes(self) -> int:
        """Resident memory of all its processes; shared pages count once a process."""
        total = 0
        for process in self.processes():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, in one line."""
        return last_words(self.log.read_text(errors="replace"), lines)

    def stop(self, timeout_s: float = 10) -> None:
        """SIGTERM to the group, then SIGKILL to whoever is left, those with a session of their own included."""
        family = self.processes()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        _, left = psutil.wait_procs(family, timeout=2)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
