"""`kill -9` at every named moment of an upload, a deployment and a removal: after the next start nothing that was
acknowledged is lost, and nothing half-done is seen.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from core.database.repositories.versions import Versions
from core.database.session import Database
from core.kill_points import ENVIRONMENT, POINTS
from tests.acceptance import onnx_models
from tests.databases import with_database
from tests.servers import RunningServer, wait_until

CALL: dict[str, Any] = {"json": {"inputs": {"x": [[1, 2, 3, 4]]}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Each test kills it, and starts it again: at first with nothing in service, which is the cheaper start."""
    folder = tmp_path_factory.mktemp("killed")
    with RunningServer(folder, {ENVIRONMENT: str(folder / "armed")}) as server:
        server.expected_in_log += ["validation.crashed"]
        yield server


@pytest.fixture(scope="module")
def serving(server: RunningServer) -> RunningServer:
    """The same, with `base` 1 in service, and its version 2 there."""
    server.upload("base", onnx_models.scale(2))
    server.upload("base", onnx_models.scale(3), version=True)
    server.deploy("base", 1)
    return server


def test_every_point_is_reached_by_a_test() -> None:
    assert {*_UPLOAD, *_DEPLOY, *_REMOVE} == set(POINTS)


_UPLOAD = [point for point in POINTS if point.startswith(("upload.", "validation."))]
_DEPLOY = [point for point in POINTS if point.startswith("deploy.")]
_REMOVE = [point for point in POINTS if point.startswith("remove.")]


@pytest.mark.parametrize("point", _UPLOAD)
def test_during_an_upload(server: RunningServer, point: str) -> None:
    name = point.replace(".", "-")
    answers: list[int] = []
    with _killed_at(server, point):
        answers.append(server.send_upload(name, onnx_models.scale(10 + _UPLOAD.index(point))).status_code)
    there = server.api("GET", f"/models/{name}").status_code == 200
    assert there or 202 not in answers, "what was acknowledged is there"
    assert there == (point not in _BEFORE_COMMIT)
    if there:
        assert server.wait_version(name, 1)["status"] == "valid"
    else:
        assert server.upload(name, onnx_models.scale(10 + _UPLOAD.index(point))) == 1, "it can be done again"
    _assert_whole(server)


_BEFORE_COMMIT = _UPLOAD[: _UPLOAD.index("upload.committed")]


@pytest.mark.parametrize("point", _REMOVE)
def test_during_a_removal(server: RunningServer, point: str) -> None:
    server.upload("going", onnx_models.scale(50 + _REMOVE.index(point)))
    with _killed_at(server, point):
        server.api("DELETE", "/models/going")
    there = server.api("GET", "/models/going").status_code == 200
    assert there == (point == "remove.written")
    _assert_whole(server)
    if there:
        server.ok("DELETE", "/models/going")
    _assert_whole(server)


@pytest.mark.parametrize("point", _DEPLOY)
def test_during_a_deployment(serving: RunningServer, point: str) -> None:
    server = serving
    desired = server.ok("GET", "/models/base/deployment")["desired"]
    before, wanted = desired["traffic"][0]["version"], 3 - desired["traffic"][0]["version"]
    with _killed_at(server, point):
        body = {"version": wanted, "queue_size": 100 + _DEPLOY.index(point)}
        server.api("PUT", "/models/base/deployment", json=body)
    after = server.ok("GET", "/models/base/deployment")["desired"]
    serves = after["traffic"][0]["version"]
    assert serves == (before if point == "deploy.written" else wanted)
    assert after["generation"] == desired["generation"] + (serves == wanted)
    server.wait_generation("base", after["generation"])
    assert server.infer("base", server.token(), **CALL).json()["outputs"][0]["data"][0] == serves + 1
    _assert_whole(server)


@contextmanager
def _killed_at(server: RunningServer, point: str) -> Iterator[None]:
    """What the caller does now ends with the server's death at this point; and then it is started again."""
    armed = server.folder / "armed"
    armed.write_text(point)
    with suppress(httpx.TransportError):
        yield
    process = server.process
    wait_until("The kill", lambda: process.poll() is not None)
    assert process.returncode == -signal.SIGKILL
    armed.unlink()
    server.kill()
    server.start()


def _assert_whole(server: RunningServer) -> None:
    """The store holds what the database names, and nothing else."""

    async def named(database: Database) -> set[str]:
        async with database.session() as session:
            return {address async for address in Versions(session).addresses()}

    url = f"sqlite:///{server.data_dir / 'pulvinar.db'}"
    assert set(server.artifacts()) == with_database(url, named)
    assert server.incoming() == []
