"""The moments after a start, and what a reload takes over."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.conftest import StartServer
from tests.databases import fresh_database
from tests.servers import INTERNAL, PLAIN, RunningServer, wait_until

CALL: dict[str, Any] = {"json": {"inputs": {"x": [[1, 2, 3, 4]]}}}


@contextmanager
def _locked(url: str, table: str) -> Iterator[None]:
    """Nobody else can read the table meanwhile."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url, timeout=10))
        try:
            runner.run(connection.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            yield
        finally:
            runner.run(connection.close())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_before_the_first_look_at_the_database_nothing_is_said_to_be_missing(tmp_path: Path, workers: str) -> None:
    with fresh_database("postgresql", tmp_path) as url:
        variables = {"PULVINAR_DATABASE__URL": url, "PULVINAR_SERVER__WORKERS": workers}
        with RunningServer(tmp_path, variables) as server:
            server.upload("scale", onnx_models.scale())
            server.deploy("scale")
            token = server.token()
            server.stop()
            with _locked(url, "deployments"):
                server.start(wait_ready=False)
                for answer in _ask_all_ways(server, token):
                    native = answer.request.url.path.startswith("/api")
                    refused(answer, 503, "not_ready" if native else None, "just started")
                    assert answer.headers["retry-after"] == "1"
            server.wait_ready()
            assert server.infer("scale", token, **CALL).status_code == 200
            refused(server.infer("other", token, **CALL), 404, "model_not_found")


def _ask_all_ways(server: RunningServer, token: str) -> list[Any]:
    headers = {"X-Access-Token": token}
    return [
        server.infer("scale", token, **CALL),
        server.infer("scale", token, query="?version=1", **CALL),
        server.client.post("/v2/models/scale/infer", headers=headers, json={}),
        server.client.get("/v2/models/scale/ready", headers=headers),
    ]


def test_a_version_that_should_answer_and_does_not_yet_is_told_from_one_that_should_not(
    start_server: StartServer,
) -> None:
    server = start_server()
    for factor in (2, 3, 4):
        server.upload("scale", onnx_models.scale(factor), version=factor > 2)
    server.deploy("scale")
    token = server.token()
    # Version 2 cannot be loaded: it stays desired, while version 1 serves on.
    address = server.ok("GET", "/models/scale/versions/2")["sha256"]
    folder = server.data_dir / "artifacts" / address[:2] / address
    folder.rename(folder.with_name("gone"))
    server.deploy("scale", 2, state="failed")
    answer = server.infer("scale", token, query="?version=2", **CALL)
    refused(answer, 503, "not_ready", "Version 2")
    assert answer.headers["retry-after"] == "1"
    for version in (3, 9):
        answer = server.infer("scale", token, query=f"?version={version}", **CALL)
        refused(answer, 404, "model_not_found", f"Version {version}", "ask for 1")
    assert server.infer("scale", token, query="?version=1", **CALL).status_code == 200


def test_a_token_that_was_revoked_is_told_so_after_a_restart(start_server: StartServer) -> None:
    server = start_server()
    made, other = server.new_token(), server.token()
    server.ok("DELETE", f"/tokens/{made['id']}")
    for _ in range(2):
        refused(server.infer("none", made["secret"], **CALL), 401, "unauthenticated", "revoked")
        refused(server.infer("none", other[:-4] + "AAAA", **CALL), 401, "unauthenticated", "not valid")
        server.restart()


def test_a_reload_takes_over_the_access_log(start_server: StartServer, tmp_path: Path) -> None:
    settings = tmp_path / "config.yaml"
    settings.write_text("log: {access: false}\n")
    server = start_server()
    token = server.token()
    server.infer("before", token, **CALL)
    _reload(server, "log: {access: true}\n")
    server.infer("after", token, **CALL)
    wait_until("The line of a request", lambda: "/inference/after" in server.log())
    assert "/inference/before" not in server.log()
    _reload(server, "log: {access: false}\n")
    server.infer("hidden", token, **CALL)
    _reload(server, "log: {access: true}\n")
    server.infer("last", token, **CALL)
    wait_until("The line of a request", lambda: "/inference/last" in server.log())
    assert "/inference/hidden" not in server.log()


def test_a_reload_takes_over_the_level_and_what_is_slow(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("log: {level: info}\n")
    server = start_server()
    server.upload("scale", onnx_models.scale())
    server.deploy("scale")
    token = server.token()
    server.infer("scale", token, **CALL)
    _reload(server, "log: {access: false, slow_ms: 0.001}\n")
    answers = [server.infer("scale", token, **CALL, query=query) for query in ("", "?version=1")]
    server.infer("none", token, **CALL)
    server.ok("GET", "/models")  # not asked by an application
    wait_until("Three lines", lambda: len(server.log_events("request.slow")) == 3)
    slow = server.log_events("request.slow")
    assert [line["request_id"] for line in slow[:2]] == [answer.json()["request_id"] for answer in answers]
    for line, answer in zip(slow, answers, strict=False):
        assert (line["level"], line["model"], line["version"]) == ("warning", "scale", 1)
        told = answer.json()["timing_ms"]
        assert {stage: line["timing_ms"][stage] for stage in told} == told
        assert set(line["timing_ms"]) - set(told) == {"batch_wait", "load"}
        assert line["ms"] >= told["total"]
    assert slow[2]["status"] == 404
    assert "timing_ms" not in slow[2]
    # Errors alone are worth a line now, and the reload is none: another setting shows that it is done.
    quiet = "{log: {level: error, slow_ms: 0.001}, inference: {max_body_bytes: 1024}}\n"
    (tmp_path / "config.yaml").write_text(quiet)
    server.process.send_signal(signal.SIGHUP)
    wait_until("The reload", lambda: server.infer("scale", token, content=b" " * 2000).status_code == 413)
    server.infer("scale", token, **CALL, headers={"X-Request-ID": "unheard"})
    _reload(server, "log: {level: info, slow_ms: 100000}\n")
    server.infer("scale", token, **CALL, headers={"X-Request-ID": "quick"})
    wait_until("Its line", lambda: "quick" in [line["request_id"] for line in server.log_events("request")])
    assert "unheard" not in server.log()
    assert "quick" not in [line["request_id"] for line in server.log_events("request.slow")]


def test_a_reload_takes_over_the_sign_in_rate(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("access: {login_rate: 1000/minute}\n")
    server = RunningServer(tmp_path)
    del server.variables["PULVINAR_ACCESS__LOGIN_RATE"]
    with server:
        assert [_wrong_login(server) for _ in range(4)] == [401] * 4
        _reload(server, "access: {login_rate: 2/hour}\n")
        assert [_wrong_login(server) for _ in range(3)] == [401, 401, 429]


def test_a_reload_takes_over_the_form_of_the_logs_and_the_connections(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("log: {format: json}\n")
    server = RunningServer(tmp_path)
    del server.variables["PULVINAR_LOG__FORMAT"]
    with server:
        assert server.log_events("server.started")
        _reload(server, "{log: {format: console}, server: {max_connections: 1}}\n")
        assert not server.log_events("server.reloaded")
        assert server.client.get("/health/live").status_code == 200
        other = httpx.get(f"http://127.0.0.1:{server.port}/health/live", **PLAIN)
        refused(other, 503, "too_many_connections")


def _reload(server: RunningServer, settings: str) -> None:
    count = server.log().count("server.reloaded")
    (server.folder / "config.yaml").write_text(settings)
    server.process.send_signal(signal.SIGHUP)
    wait_until("The reload", lambda: server.log().count("server.reloaded") > count)


def _wrong_login(server: RunningServer) -> int:
    wrong = {"username": "admin", "password": "not the password"}
    return server.client.post(f"{INTERNAL}/auth/login", json=wrong).status_code
