"""A real server in a process of its own, called as an administrator and an application would."""

from __future__ import annotations

import io
import itertools
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import psutil

from tests.starts import Start

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "run.py"
DEMO_MODEL = ROOT / "demo/models/efficientnet-lite0"
DETECTOR = ROOT / "demo/models/centernet-mobilenetv3"
DEMO_IMAGES = ROOT / "demo/images"
PASSWORD = "correct horse battery"
INTERNAL = "/api/v1/internal"
# What no log of a healthy run holds, whatever its callers do.
_SIGNS_OF_FAILURE = (
    "Traceback",
    "request.crashed",
    "background.died",
    "never retrieved",
    "was destroyed but it is pending",
    '"level":"error"',
    '"level":"critical"',
)

T = TypeVar("T")


# Below those that the kernel gives to whoever asks for any: nobody is given one between its choice here and its
# use by a server that is being started. Each process begins at a place of its own, and takes one after the other.
_PORTS = range(12_000, 32_000)
_next_port = itertools.count(secrets.randbelow(len(_PORTS)))


def free_port() -> int:
    """A port that nobody listens on."""
    for number in _next_port:
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is always another one")


PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}
"""For a client without TLS: reading the authorities that it would trust takes more time than many a call."""
SELDOM_S = 0.3


def wait_until(what: str, look: Callable[[], T | None], timeout_s: float = 30, every_s: float | None = None) -> T:
    """The first answer of `look` that is true; fails with `what` when none comes in time.

    Without `every_s` it looks less often the longer it waits, a fifth too late at most: what is waited for
    needs the processor too. What lasts but a moment needs `every_s`.
    """
    began = time.monotonic()
    while True:
        found = look()
        if found:
            return found
        waited = time.monotonic() - began
        assert waited < timeout_s, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(every_s or max(0.02, min(waited / 5, SELDOM_S)))


def zip_bytes(files: Mapping[str, bytes | str], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def demo_package(model: Path = DEMO_MODEL) -> bytes:
    """A model of the demo, by default the classifier, as an administrator would upload it."""
    return zip_bytes({name: (model / name).read_bytes() for name in ("model.onnx", "model.yaml", "labels.txt")})


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server or a command: ours without any setting of Pulvinar, and `variables`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PULVINAR_")}
    return {**inherited, **(variables or {})}


class RunningServer:
    """`with RunningServer(folder) as server:` runs `run.py` on `folder/data` until the block ends.

    Leaving the block stops it with SIGTERM and asserts a clean end: exit code 0 within the drain time, and a log
    without a sign of failure, but for what `expected_in_log` lists. With `whole` the process is a new one, imports
    and all; without, a fork of one that has loaded the program (`tests.starts`).
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        *,
        flags: tuple[str, ...] = (),
        whole: bool = False,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.log_path = folder / "server.log"
        self.patience_s = 30.0
        """So long it is waited for a start, readiness and deployments, whatever else the machine does."""
        self.expected_in_log: list[str] = []
        self.variables = {
            "PULVINAR_ADMIN_PASSWORD": PASSWORD,
            "PULVINAR_LOG__FORMAT": "json",
            "PULVINAR_SERVER__DRAIN_S": "3",
            "PULVINAR_DATABASE__POLL_S": "0.2",
            "PULVINAR_ACCESS__LOGIN_RATE": "10000/minute",
            "PULVINAR_ACCESS__USER_FAILURE_RATE": "10000/minute",
            **(variables or {}),
        }
        self.drain_s = float(self.variables["PULVINAR_SERVER__DRAIN_S"])
        self.flags = flags
        self.whole = whole
        self.trusts: ssl.SSLContext | None = None
        """The authority of the server's certificate, where it speaks TLS."""
        self.port = 0
        self.client = httpx.Client(**PLAIN)
        self._process: subprocess.Popen[bytes] | Start | None = None
        self._auth: dict[str, str] = {}
        self._logged_before = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    # The process

    @property
    def process(self) -> subprocess.Popen[bytes] | Start:
        """The server's process."""
        assert self._process is not None, "the server is not running"
        return self._process

    def start(self, *, wait_ready: bool = True) -> None:
        """Start the process and wait until it is live, and then until it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        arguments = ["--data-dir", str(self.data_dir), "--port", str(self.port), *self.flags]
        env = environment(self.variables)
        with self.log_path.open("ab") as log:
            if self.whole:
                command = [sys.executable, str(RUN), *arguments]
                self._process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)
            else:
                self._process = Start(arguments, cwd=self.folder, env=env, stdout=log, stderr=log)
        self.client.close()
        scheme = "http" if self.trusts is None else "https"
        self.client = httpx.Client(
            base_url=f"{scheme}://127.0.0.1:{self.port}", timeout=30, trust_env=False, verify=self.trusts or False
        )
        wait_until("The server's start", self._is_live, self.patience_s)
        if wait_ready:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until everything that should be served is."""
        wait_until("Readiness", lambda: self.client.get("/health/ready").status_code == 200, self.patience_s)

    def terminate(self) -> None:
        """Ask it to stop, and do not wait."""
        self.process.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Wait for the end of a process that was asked to stop; it must be an orderly one."""
        try:
            code = self.process.wait(self.drain_s + 20)  # it has 15 s more than the drain, and then ends by force
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the server did not end:\n{self.log()[-4000:]}") from error
        self.client.close()
        self._process = None
        assert code == 0, f"the server ended with {code}:\n{self.log()[-4000:]}"
        failures = self.failures()
        assert not failures, "the log shows a failure:\n" + "\n".join(failures)[:6000]

    def stop(self) -> None:
        """SIGTERM, and an orderly end."""
        if self._process is not None:
            self.terminate()
            self.wait_stopped()

    def restart(self) -> None:
        """Stop, and start again on the same data, at another port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel does it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
        self.client.close()

    def log(self) -> str:
        """All that it has said so far, over all its starts."""
        return self.log_path.read_text(errors="replace")

    def log_events(self, event: str) -> list[dict[str, Any]]:
        """The log's lines about one event; one that is being written is none yet."""
        lines = [line for line in self.log().split("\n")[:-1] if f'"event":"{event}"' in line]
        return [json.loads(line) for line in lines]

    def failures(self) -> list[str]:
        """Lines of the log that no healthy run has."""
        return [
            line
            for line in self.log().splitlines()
            if any(sign in line for sign in _SIGNS_OF_FAILURE)
            and not any(expected in line for expected in self.expected_in_log)
        ]

    def cli(
        self, *arguments: str, stdin: str = "", variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of `run.py` on the same data and settings."""
        return run_cli(
            "--data-dir",
            str(self.data_dir),
            *arguments,
            stdin=stdin,
            cwd=self.folder,
            variables={**self.variables, **(variables or {})},
        )

    # The administrator

    def login(self, username: str = "admin", password: str = PASSWORD) -> str:
        """Sign in, and remember the token; a session that is open already is used again."""
        if username not in self._auth:
            answer = self.client.post(f"{INTERNAL}/auth/login", json={"username": username, "password": password})
            assert answer.status_code == 200, answer.text
            self._auth[username] = answer.json()["token"]
        return self._auth[username]

    def forget_login(self) -> None:
        """Sign in anew at the next call."""
        self._auth.clear()

    def api(self, method: str, path: str, *, user: str = "admin", **options: Any) -> httpx.Response:
        """Call the internal API; `path` begins after its prefix."""
        headers = {"X-Auth-Token": self.login(user), **options.pop("headers", {})}
        return self.client.request(method, f"{INTERNAL}{path}", headers=headers, **options)

    def ok(self, method: str, path: str, **options: Any) -> Any:
        """Call the internal API and answer its body; anything but a success fails."""
        answer = self.api(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def user(self, name: str, role: str, password: str = PASSWORD) -> int:
        """Add a user who can sign in with `api(..., user=name)`; answers the id."""
        added: int = self.ok("POST", "/users", json={"name": name, "password": password, "role": role})["id"]
        return added

    def send_upload(self, name: str, file: bytes, *, version: bool = False, **fields: str) -> httpx.Response:
        """Send a model, or with `version` the next version of one."""
        path = f"/models/{name}/versions" if version else "/models"
        data = fields if version else {"name": name, **fields}
        return self.api("POST", path, files={"file": ("model.onnx", file)}, data=data)

    def upload(self, name: str, file: bytes, *, version: bool = False, **fields: str) -> int:
        """Upload a model that must be found valid; answers the version's number."""
        answer = self.send_upload(name, file, version=version, **fields)
        assert answer.status_code == 202, answer.text
        number: int = answer.json()["version"]["version"]
        checked = self.wait_version(name, number)
        assert checked["status"] == "valid", checked["report"]
        return number

    def wait_version(self, name: str, number: int, timeout_s: float = 60) -> dict[str, Any]:
        """The version, once its validation has ended."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.ok("GET", f"/models/{name}/versions/{number}")
            return found if found["status"] != "validating" else None

        return wait_until(f"The validation of {name}/{number}", look, timeout_s)

    def deploy(self, name: str, version: int = 1, *, state: str = "serving", **options: Any) -> dict[str, Any]:
        """Deploy a version and wait for the end of it, which must be `state`; answers what is observed."""
        accepted = self.ok("PUT", f"/models/{name}/deployment", json={"version": version, **options})
        return self.wait_generation(name, accepted["generation"], state)

    def wait_generation(self, name: str, generation: int, state: str = "serving") -> dict[str, Any]:
        """What is observed once the generation has come to rest, which must be in `state`."""

        def look() -> dict[str, Any] | None:
            observed: dict[str, Any] = self.observed(name)
            rests = observed["generation"] == generation and observed["state"] in ("serving", "failed", "stopped")
            return observed if rests else None

        observed = wait_until(f"Generation {generation} of {name}", look, self.patience_s)
        assert observed["state"] == state, observed
        return observed

    def observed(self, name: str) -> dict[str, Any]:
        """What a deployment is like now."""
        observed: dict[str, Any] = self.ok("GET", f"/models/{name}/deployment")["observed"]
        return observed

    def token(self, **fields: Any) -> str:
        """The secret of a new access token."""
        secret: str = self.new_token(**fields)["secret"]
        return secret

    def new_token(self, **fields: Any) -> dict[str, Any]:
        """A new access token, with its id and its secret."""
        made: dict[str, Any] = self.ok("POST", "/tokens", json={"name": "test", **fields})
        return made

    # The application

    def infer(self, name: str, token: str, **options: Any) -> httpx.Response:
        """Call a model: `content=`, `files=` or `json=` as of httpx, `query=` for the URL."""
        headers = {"X-Access-Token": token, **options.pop("headers", {})}
        query = options.pop("query", "")
        return self.client.post(f"/api/v1/inference/{name}{query}", headers=headers, **options)

    # What lies about

    def rss_bytes(self) -> int:
        """The resident memory of its first process."""
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def maps(self) -> list[str]:
        """How the memory of its first process is laid out, a line a mapping, as in proc(5)."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/maps").read_text().splitlines()

    def cpu_s(self) -> float:
        """Seconds of a processor that its first process has used."""
        assert self._process is not None
        used = psutil.Process(self._process.pid).cpu_times()
        return float(used.user + used.system)

    def incoming(self) -> list[str]:
        """What has not been cleared away of uploads."""
        folder = self.data_dir / "artifacts/incoming"
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []

    def artifacts(self) -> list[str]:
        """The addresses of all artifacts in the store."""
        return sorted(entry.name for entry in (self.data_dir / "artifacts").glob("[0-9a-f][0-9a-f]/*"))

    def _is_live(self) -> bool:
        code = self.process.poll()
        assert code is None, f"the server ended with {code} at its start:\n{self.log()[-4000:]}"
        try:
            return self.client.get("/health/live").status_code == 200
        except httpx.TransportError:
            return False


def run_cli(
    *arguments: str, cwd: Path, stdin: str = "", variables: Mapping[str, str] | None = None, whole: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `run.py` with these arguments to its end; `whole` as of RunningServer."""
    env = environment(variables)
    if whole:
        command = [sys.executable, str(RUN), *arguments]
        return subprocess.run(
            command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=90, check=False
        )
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        started = Start(arguments, cwd=cwd, env=env, stdin=given, stdout=out, stderr=err)
        try:
            code = started.wait(90)
        finally:
            started.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([*arguments], code, out.read().decode(), err.read().decode())
