"""What is around a server goes away, and comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.cut_off import CutOff
from tests.databases import fresh_database
from tests.redis_server import RedisServer
from tests.servers import INTERNAL, PLAIN, RunningServer, wait_until

CALL: dict[str, Any] = {"json": {"inputs": {"x": [[1, 2, 3, 4]]}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One on SQLite, which gives up on a locked database after half a second."""
    folder = tmp_path_factory.mktemp("faults")
    with RedisServer() as redis:
        variables = {
            "PULVINAR_DATABASE__TIMEOUT_S": "0.5",
            "PULVINAR_REDIS__URL": redis.url,
            "PULVINAR_ACCESS__LIMITS_ON_FAILURE": "closed",
        }
        with RunningServer(folder, variables) as server:
            server.upload("scale", onnx_models.scale(2))
            server.deploy("scale")
            server.redis = redis  # type: ignore[attr-defined]
            yield server


def test_a_database_that_another_process_locks(server: RunningServer) -> None:
    token = server.token()
    with closing(sqlite3.connect(server.data_dir / "pulvinar.db", timeout=5)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        answer = server.api("POST", "/tokens", json={"name": "x"})
        refused(answer, 503, "unavailable", "too busy")
        assert answer.headers["retry-after"] == "1"
        refused(server.send_upload("new", onnx_models.scale(3)), 503, "unavailable", "too busy")
        for _ in range(10):
            assert server.infer("scale", token, **CALL).status_code == 200
        other.execute("ROLLBACK")
    wait_until("A change", lambda: server.api("POST", "/tokens", json={"name": "x"}).status_code == 201)
    assert not server.incoming()
    assert len(server.artifacts()) == 1, "nothing is left of the upload that was refused"


def test_redis_gone_and_back(server: RunningServer) -> None:
    redis: RedisServer = server.redis  # type: ignore[attr-defined]
    limited, free = server.token(rate="3/day"), server.token()
    for _ in range(3):
        assert server.infer("scale", limited, **CALL).status_code == 200
    refused(server.infer("scale", limited, **CALL), 429, "limit_exceeded")
    redis.kill()
    refused(server.infer("scale", limited, **CALL), 503, "limits_unavailable")
    assert server.infer("scale", free, **CALL).status_code == 200
    redis.start()
    wait_until("Redis", lambda: server.infer("scale", limited, **CALL).status_code == 200)


def test_a_server_database_that_stops_and_starts_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Seen from the server: its port closes, refuses, and is there again."""
    folder = tmp_path_factory.mktemp("away")
    with fresh_database("postgresql", folder) as url, CutOff(urlsplit(url).port or 5432) as way:
        variables = {
            "PULVINAR_DATABASE__URL": url.replace(f":{urlsplit(url).port}", f":{way.port}"),
            "PULVINAR_DATABASE__TIMEOUT_S": "1",
        }
        with RunningServer(folder, variables, flags=("--workers", "2")) as server:
            server.expected_in_log.append("database")
            server.upload("scale", onnx_models.scale(2))
            server.deploy("scale")
            token = server.token()
            url = f"http://127.0.0.1:{server.port}"

            def call(_: int = 0) -> int:
                """On a connection of its own, which either worker may take."""
                path, headers = f"{url}/api/v1/inference/scale", {"X-Access-Token": token}
                return httpx.post(path, headers=headers, timeout=30, **PLAIN, **CALL).status_code

            def known_to_both() -> bool:
                with ThreadPoolExecutor(8) as pool:
                    return set(pool.map(call, range(32))) == {200}

            wait_until("The token", known_to_both)
            way.cut(close=True)
            for _ in range(5):
                assert call() == 200
                change = httpx.post(
                    f"{url}{INTERNAL}/tokens",
                    headers={"X-Auth-Token": server.login()},
                    json={"name": "x"},
                    **PLAIN,
                )
                refused(change, 503, "unavailable", "database")
            way.heal()
            wait_until(
                "A change", lambda: server.api("POST", "/tokens", json={"name": "x"}).status_code == 201, 10
            )
            generation = server.ok("PUT", "/models/scale/deployment", json={"version": 1, "queue_size": 9})
            server.wait_generation("scale", generation["generation"])
