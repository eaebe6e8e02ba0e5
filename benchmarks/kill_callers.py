"""The administrators of the kill campaign: each uploads, deploys and removes one model, and books the answers."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.servers import RunningServer, zip_bytes

BALLAST_BYTES = 600_000


@dataclass
class Tally:
    """What a leg has done and found."""

    kills: int = 0
    uploads: int = 0
    deployments: int = 0
    removals: int = 0
    unanswered: int = 0
    cleared_at_starts: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Book:
    """What was acknowledged of one model, and what was asked for last and not answered."""

    exists: bool | None = False
    """None where a removal, or the first upload, was not answered."""
    versions: dict[int, str] = field(default_factory=dict)
    """The SHA-256 of each version that was acknowledged, by its number."""
    generation: int = 0
    deployed: int = 0


class Caller(threading.Thread):
    """One administrator, at work on one model until the server is gone."""

    def __init__(self, server: RunningServer, name: str, book: Book, tally: Tally, chance: random.Random) -> None:
        super().__init__(name=name)
        self._url = str(server.client.base_url)
        self._headers = {"X-Auth-Token": server.login()}
        self._model, self._book, self._tally, self._chance = name, book, tally, chance
        self.wrong: list[str] = []

    def run(self) -> None:
        with httpx.Client(
            base_url=self._url, headers=self._headers, timeout=60, trust_env=False, verify=False
        ) as client:
            while True:
                try:
                    self._act(client)
                except httpx.TransportError:
                    self._tally.unanswered += 1
                    return
                except AssertionError as error:
                    self.wrong.append(f"{self._model}: {error}")
                    return

    def _act(self, client: httpx.Client) -> None:
        act = self._chance.random()
        if not self._book.exists or act < 0.35 or not self._book.versions:
            self._upload(client)
        elif act < 0.9:
            self._deploy(client)
        else:
            self._remove(client)

    def _upload(self, client: httpx.Client) -> None:
        first = not self._book.exists
        path = "/models" if first else f"/models/{self._model}/versions"
        data = {"name": self._model} if first else {}
        if first:
            self._book.exists = None
        answer = self._call(client, "POST", path, files={"file": ("m.zip", package(self._chance))}, data=data)
        if _stops(answer):
            return
        assert answer.status_code == 202, answer.text
        version = answer.json()["version"]
        self._book.exists = True
        self._book.versions[version["version"]] = version["sha256"]
        self._tally.uploads += 1

    def _deploy(self, client: httpx.Client) -> None:
        version = self._chance.choice([*self._book.versions])
        answer = self._call(client, "PUT", f"/models/{self._model}/deployment", json={"version": version})
        if answer.status_code == 409 or _stops(answer):  # it is still being validated
            time.sleep(0.02)
            return
        assert answer.status_code == 202, answer.text
        self._book.generation, self._book.deployed = answer.json()["generation"], version
        self._tally.deployments += 1

    def _remove(self, client: httpx.Client) -> None:
        stopped = self._call(client, "DELETE", f"/models/{self._model}/deployment")
        if _stops(stopped):
            return
        self._book.deployed = 0
        self._book.exists = None
        answer = self._call(client, "DELETE", f"/models/{self._model}")
        if _stops(answer):
            return
        self._book.exists = answer.status_code != 204
        if answer.status_code == 204:
            self._book.versions.clear()
            self._book.generation = 0
            self._tally.removals += 1

    def _call(self, client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
        return client.request(method, f"/api/v1/internal{path}", **options)


def _stops(answer: httpx.Response) -> bool:
    """Whether the server says that it is just stopping, as workers do whose control process was killed."""
    return answer.status_code == 503


def package(chance: random.Random) -> bytes:
    """A model that is like no other, with some ballast, so that a kill finds its upload under way."""
    factor = numpy_helper.from_array(np.array([chance.uniform(1, 1000)], np.float32), "factor")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "m", values[:1], values[1:], [factor]
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    files = {"model.onnx": model.SerializeToString(), "model.yaml": "task: tensor\n"}
    return zip_bytes({**files, "ballast.txt": chance.randbytes(chance.randrange(BALLAST_BYTES)).hex()})
