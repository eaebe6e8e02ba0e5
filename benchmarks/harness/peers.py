"""The servers compared: how each is installed, started, asked and understood."""

from __future__ import annotations

import json
import sys
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import models
from benchmarks.harness.environments import python_of
from benchmarks.harness.machine import package_versions
from benchmarks.harness.places import PEERS, scratch
from benchmarks.harness.server import Server, free_port
from benchmarks.harness.workload import Call, Kind, Workload

JSON_TYPE = {"Content-Type": "application/json"}
JPEG_TYPE = {"Content-Type": "image/jpeg"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Peer(ABC):
    """A server that can be measured. `prepare` once, then `start` as often as wanted."""

    name: str

    @abstractmethod
    def prepare(self, kind: Kind) -> None:
        """Whatever takes long and is done once. Raises InstallFailed or DidNotStart."""

    @abstractmethod
    def start(self, kind: Kind, cores: Iterable[int] | None) -> Server:
        """A server that is ready to be asked. Raises DidNotStart."""

    @abstractmethod
    def call(self, workload: Workload) -> Call:
        """The workload in this server's words."""

    @abstractmethod
    def read(self, kind: Kind, answer: bytes) -> list[float]:
        """The ten floats of a tiny answer, or the index of the likeliest class."""

    def versions(self) -> dict[str, str]:
        """Versions of its packages."""
        return package_versions(Path(sys.executable))

    def check(self, server: Server, workload: Workload) -> None:
        """Ask once and refuse to measure a server that answers something else than the work asked for."""
        call = self.call(workload)
        status, body = server.post(call.path, call.headers, call.body)
        if status != 200:
            raise WrongAnswer(f"answered {status}: {body[:200].decode(errors='replace')}")
        found = self.read(workload.kind, body)
        if workload.kind == "tiny":
            right = models.tiny_answer()
            wrong = len(found) != len(right) or any(
                abs(one - two) > 1e-3 for one, two in zip(found, right, strict=True)
            )
        else:
            wrong = int(found[0]) not in CATS
        if wrong:
            raise WrongAnswer(f"answered {found[:3]}")


CATS = (281, 282, 285)
"""ImageNet classes of the photo `chelsea`: tabby, tiger cat, Egyptian cat."""


class WrongAnswer(Exception):
    """A server that runs but does not do the work."""


def _plain_call(workload: Workload) -> Call:
    if workload.kind == "tiny":
        return Call("/tiny", JSON_TYPE, json.dumps({"inputs": models.TINY_INPUT}).encode())
    return Call("/classify", JPEG_TYPE, workload.jpeg)


def _litserve_call(workload: Workload) -> Call:
    """LitServe reads files from forms only."""
    if workload.kind == "tiny":
        return _plain_call(workload)
    part = 'Content-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    head = f"--bench\r\n{part}\r\n\r\n".encode()
    headers = {"Content-Type": "multipart/form-data; boundary=bench"}
    return Call("/classify", headers, head + workload.jpeg + b"\r\n--bench--\r\n")


def _bentoml_call(workload: Workload) -> Call:
    if workload.kind == "tiny":
        return Call("/tiny", JSON_TYPE, json.dumps({"inputs": [models.TINY_INPUT]}).encode())
    return Call("/classify", JPEG_TYPE, workload.jpeg)


def _triton_call(workload: Workload) -> Call:
    if workload.kind == "tiny":
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, models.INPUTS], "data": models.TINY_INPUT}
        return Call("/v2/models/tiny/infer", JSON_TYPE, json.dumps({"inputs": [tensor]}).encode())
    data = len(workload.jpeg).to_bytes(4, "little") + workload.jpeg
    size = {"binary_data_size": len(data)}
    jpeg = {"name": "jpeg", "datatype": "BYTES", "shape": [1, 1], "parameters": size}
    head = json.dumps({"inputs": [jpeg]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Call("/v2/models/classify/infer", headers, head + data)


def _plain_read(kind: Kind, answer: bytes) -> list[float]:
    value = json.loads(answer)
    return value["outputs"] if kind == "tiny" else [value["predictions"][0]["index"]]


def _bentoml_read(kind: Kind, answer: bytes) -> list[float]:
    return json.loads(answer)[0] if kind == "tiny" else _plain_read(kind, answer)


def _triton_read(kind: Kind, answer: bytes) -> list[float]:
    outputs: dict[str, list[float]] = {one["name"]: one["data"] for one in json.loads(answer)["outputs"]}
    return outputs["y"] if kind == "tiny" else outputs["index"][:1]


@dataclass
class VenvPeer(Peer):
    """A server from the package index in an environment of its own."""

    name: str
    environment: str
    requirements: tuple[str, ...]
    command: Callable[[int, Kind], list[str]]
    ready_path: Callable[[Kind], str]
    to_call: Callable[[Workload], Call] = _plain_call
    from_answer: Callable[[Kind, bytes], list[float]] = _plain_read
    env: dict[str, str] = field(default_factory=dict)

    def prepare(self, kind: Kind) -> None:
        """Make its environment and its models."""
        python_of(self.environment, self.requirements)
        models.tiny_model()

    def start(self, kind: Kind, cores: Iterable[int] | None) -> Server:
        """Start it on a free port and wait for it."""
        port = free_port()
        python = python_of(self.environment, self.requirements)
        env = {
            **ONE_THREAD,
            "BENCH_TINY": str(models.tiny_model()),
            "BENCH_CLASSIFIER": str(models.CLASSIFIER),
            "BENCH_WORK": kind,
            "BENTOML_HOME": str(scratch("bentoml")),
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.env,
        }
        server = Server(self.name, [str(python), *self.command(port, kind)], port, env, cores, cwd=PEERS)
        try:
            server.wait_ready(self.ready_path(kind))
        except BaseException:
            server.stop()
            raise
        return server

    def call(self, workload: Workload) -> Call:
        """The workload in this server's words."""
        return self.to_call(workload)

    def read(self, kind: Kind, answer: bytes) -> list[float]:
        """Its answer, understood."""
        return self.from_answer(kind, answer)

    def versions(self) -> dict[str, str]:
        """Versions in its own environment."""
        return package_versions(python_of(self.environment, self.requirements))


def _uvicorn(app: str) -> Callable[[int, Kind], list[str]]:
    def command(port: int, _kind: Kind) -> list[str]:
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        return ["-m", "uvicorn", f"{app}:app", "--host", "127.0.0.1", "--port", str(port), *options]

    return command


def _script(file: str) -> Callable[[int, Kind], list[str]]:
    return lambda port, kind: [file, "--port", str(port), "--work", kind]


def _bentoml(port: int, _kind: Kind) -> list[str]:
    return ["-m", "bentoml", "serve", "bentoml_app:service", "--host", "127.0.0.1", "--port", str(port), "--quiet"]


_BARE = ("fastapi", "uvicorn", "uvloop", "httptools", "orjson")

VENV_PEERS: dict[str, VenvPeer] = {
    peer.name: peer
    for peer in (
        VenvPeer("raw-asgi", "bare", _BARE, _uvicorn("raw_asgi"), lambda _: "/"),
        VenvPeer("fastapi", "bare", _BARE, _uvicorn("fastapi_bare"), lambda _: "/health"),
        VenvPeer(
            "litserve", "litserve", ("litserve", "uvloop", "httptools", "python-multipart"),
            _script("litserve_app.py"),
            lambda _: "/health", _litserve_call,
        ),
        VenvPeer(
            "bentoml", "bentoml", ("bentoml", "uvloop", "httptools"), _bentoml, lambda _: "/readyz",
            _bentoml_call, _bentoml_read,
        ),
        # Its stub is linked to libpython and must find that of the environment, not an older one of the system.
        VenvPeer(
            "triton", "pytriton", ("nvidia-pytriton",), _script("pytriton_app.py"),
            lambda kind: f"/v2/models/{kind}/ready", _triton_call, _triton_read,
            {"LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or ""},
        ),
    )
}  # fmt: skip
"""The peers in the order of the tables."""
