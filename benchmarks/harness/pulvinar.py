"""Pulvinar itself: an installation in a folder of its own, its command line, its admin API, and it as a peer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import models
from benchmarks.harness.peers import JPEG_TYPE, JSON_TYPE, Peer
from benchmarks.harness.places import ROOT, scratch
from benchmarks.harness.server import DidNotStart, Server, free_port, last_words
from benchmarks.harness.workload import Call, Kind, Workload

PASSWORD = "benchmark-password"
MODEL_OF: dict[Kind, str] = {"tiny": "tiny", "classify": "classifier"}
API = "/api/v1/internal"
HELPERS = ("resource_tracker", "forkserver", "semaphore_tracker")
"""Processes of multiprocessing itself."""


class Installation:
    """A data directory with its models and one token. Everything is on: tokens, limits, metrics, access log."""

    def __init__(self, name: str, *, keep: bool = False) -> None:
        self.name = name
        self.data_dir = scratch("data") / name
        if not keep:
            shutil.rmtree(self.data_dir, ignore_errors=True)
        self.token = ""
        self.more_env: dict[str, str] = {}
        """What its processes are told besides."""

    @property
    def env(self) -> dict[str, str]:
        """What its processes are told."""
        told = {"PULVINAR_ADMIN_PASSWORD": PASSWORD, "PULVINAR_DATA_DIR": str(self.data_dir)}
        return {**told, **self.more_env}

    def cli(self, *arguments: str) -> str:
        """Run the command line on this installation; returns what it printed. Raises DidNotStart."""
        command = [sys.executable, "run.py", *arguments]
        env = {**os.environ, **self.env}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise DidNotStart(f"`run.py {' '.join(arguments[:3])}`: {last_words(done.stderr or done.stdout, 3)}")
        return done.stdout

    def add_model(self, name: str, file: Path, *, deploy: bool = True) -> None:
        """`model add`, and the same name again for the next version."""
        self.cli("model", "add", name, str(file), *(["--deploy"] if deploy else []))

    def add_model_for(self, kind: Kind) -> str:
        """Add and deploy the model of a kind of work; returns its name."""
        name = MODEL_OF[kind]
        self.add_model(name, models.tiny_model() if kind == "tiny" else models.classifier_package())
        return name

    def create_token(self) -> str:
        """A token that nothing restricts; `calls` use it from now on."""
        printed = self.cli("token", "create", "--name", "bench").split()
        self.token = printed[-1] if printed else ""
        if not self.token.startswith("pv_"):
            raise DidNotStart("`token create` did not print a token on its last line")
        return self.token

    def start(
        self,
        cores: Iterable[int] | None,
        arguments: Iterable[str] = (),
        ready_timeout_s: float = 60,
        program: Sequence[str] = (sys.executable, "run.py"),
    ) -> Server:
        """Serve in production mode and wait until it is ready."""
        port = free_port()
        command = [*program, "--prod", "--port", str(port)]
        server = Server(self.name, [*command, *arguments], port, self.env, cores)
        try:
            server.wait_ready("/health/ready", ready_timeout_s)
        except BaseException:
            server.stop()
            raise
        return server

    def call(self, workload: Workload, token: str | None = None) -> Call:
        """The workload in Pulvinar's native API."""
        access = {"X-Access-Token": token or self.token}
        path = f"/api/v1/inference/{MODEL_OF[workload.kind]}"
        if workload.kind == "tiny":
            body = json.dumps({"inputs": {"x": [models.TINY_INPUT]}}).encode()
            return Call(path, {**JSON_TYPE, **access}, body)
        return Call(path, {**JPEG_TYPE, **access}, workload.jpeg)


def engine_host(server: Server, before: Collection[int] = ()) -> psutil.Process:
    """The process that an isolated deployment runs in: the largest of the server's that were not there `before`.

    Raises DidNotStart where there is none, so that nothing is measured as isolated that is not.
    """
    new = [one for one in server.processes()[1:] if one.pid not in before]
    hosts = [one for one in new if not any(word in " ".join(one.cmdline()) for word in HELPERS)]
    if not hosts:
        raise DidNotStart("isolation `process` was asked for, but the server has no engine host")
    return max(hosts, key=lambda one: int(one.memory_info().rss))


class Refused(Exception):
    """The internal API said no; the message holds its words."""


class Admin:
    """The internal API, signed in."""

    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}{API}", timeout=30)
        answer = self._http.post("/auth/login", json={"username": "admin", "password": PASSWORD})
        answer.raise_for_status()
        self._http.headers["X-Auth-Token"] = answer.json()["token"]

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def deployment(self, model: str) -> dict[str, Any]:
        """Desired and observed."""
        return self._json("GET", f"/models/{model}/deployment")

    def deploy(self, model: str, wait_s: float = 60, **spec: Any) -> float:
        """Change the deployment and wait until it is served; returns the seconds it took."""
        return self._apply("PUT", f"/models/{model}/deployment", model, wait_s, spec)

    def undeploy(self, model: str, wait_s: float = 60) -> None:
        """Take it out of service and wait until it is out of memory."""
        self._apply("DELETE", f"/models/{model}/deployment", model, wait_s, None, "stopped")

    def rollback(self, model: str, wait_s: float = 60) -> float:
        """Back to the version before; returns the seconds it took."""
        return self._apply("POST", f"/models/{model}/deployment/rollback", model, wait_s, None)

    def make_token(self, name: str) -> tuple[int, str]:
        """A token that nothing restricts: its id and its secret."""
        made = self._json("POST", "/tokens", {"name": name})
        return made["id"], made["secret"]

    def revoke_token(self, token_id: int) -> None:
        """Revoke a token; returns once that is answered."""
        self._json("DELETE", f"/tokens/{token_id}")

    def _apply(
        self,
        method: str,
        path: str,
        model: str,
        wait_s: float,
        body: dict[str, Any] | None,
        wanted: str = "serving",
    ) -> float:
        began = time.monotonic()
        generation = self._json(method, path, body)["generation"]
        while time.monotonic() - began < wait_s:
            observed = self.deployment(model)["observed"]
            if observed["generation"] >= generation and observed["state"] == wanted:
                return time.monotonic() - began
            if observed["generation"] >= generation and observed["state"] == "failed":
                raise DidNotStart(f"{model}: {observed['reason']}")
            time.sleep(0.02)
        raise DidNotStart(f"{model} was not {wanted}, generation {generation} within {wait_s:.0f} s")

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._http.request(method, path, json=body)
        if answer.is_error:
            raise Refused(f"{method} {path} answered {answer.status_code}: {answer.text[:300]}")
        value: dict[str, Any] = answer.json()
        return value


@dataclass
class PulvinarPeer(Peer):
    """Pulvinar among its peers. `spec` is what its deployment says beyond the version."""

    name: str = "pulvinar"
    spec: dict[str, Any] = field(default_factory=dict)
    installation: Installation | None = None

    def prepare(self, kind: Kind) -> None:
        """A fresh data directory with the model deployed and a token."""
        made = Installation(f"{self.name}-{kind}")
        model = made.add_model_for(kind)
        made.create_token()
        if self.spec:
            with made.start(None) as server, Admin(server.port) as admin:
                before = {process.pid for process in server.processes()}
                admin.deploy(model, version=1, **self.spec)
                if self.spec.get("isolation") == "process":
                    engine_host(server, before)
        self.installation = made

    def start(self, kind: Kind, cores: Iterable[int] | None) -> Server:
        """Serve what was prepared."""
        assert self.installation is not None
        return self.installation.start(cores)

    def call(self, workload: Workload) -> Call:
        """The native API."""
        assert self.installation is not None
        return self.installation.call(workload)

    def read(self, kind: Kind, answer: bytes) -> list[float]:
        """Task `tensor` answers `outputs`, classification `predictions`."""
        value = json.loads(answer)
        if kind == "classify":
            return [value["predictions"][0]["index"]]
        data = value["outputs"][0]["data"]
        return data[0] if isinstance(data[0], list) else data
