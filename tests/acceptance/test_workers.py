"""`--workers 2`: several HTTP processes that behave as one, and outlive each other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.acceptance import onnx_models
from tests.acceptance.callers import Callers, call_once
from tests.processes import family, hosts, the_host, wait_gone, workers
from tests.servers import INTERNAL, PLAIN, RUN, RunningServer, demo_package, environment, wait_until

POLL_S = "0.15"  # as it is by default
START_S = 90
"""Enough for several starts of a worker, most of them imports, on a machine that does other things."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with _server(tmp_path_factory.mktemp("workers")) as server:
        server.expected_in_log += [
            "settings.refused",
            "reload.given_up",
            "control.lost",
            "Application startup failed",
            "The database cannot be reached now",
        ]
        server.upload("scale", onnx_models.scale(2))
        server.upload("scale", onnx_models.scale(3), version=True)
        server.deploy("scale", 1)
        yield server


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    return _known_token(server)


def _known_token(server: RunningServer) -> str:
    """A new token, once every worker knows it: each call is a new connection, which either may take."""
    token = server.token()
    url, headers = f"http://127.0.0.1:{server.port}/api/v1/models", {"X-Access-Token": token}
    accepted = lambda: httpx.get(url, headers=headers, timeout=30, **PLAIN).status_code == 200  # noqa: E731
    wait_until("That every worker knows the token", lambda: all(accepted() for _ in range(8)))
    return token


def _server(folder: Path, **variables: str) -> RunningServer:
    return RunningServer(folder, {"PULVINAR_DATABASE__POLL_S": POLL_S, **variables}, flags=("--workers", "2"))


class Pinned:
    """Connections of which each stays with one worker."""

    def __init__(self, server: RunningServer) -> None:
        self.clients: dict[int, httpx.Client] = {}
        known = {one.pid for one in workers(server)}
        assert len(known) == 2
        while len(self.clients) < 2:
            client = httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30, **PLAIN)
            client.get("/health/live")
            pid = _who_has(client, known)
            if pid in self.clients:
                client.close()
            else:
                self.clients[pid] = client

    def __enter__(self) -> list[httpx.Client]:
        return list(self.clients.values())

    def __exit__(self, *_: object) -> None:
        for client in self.clients.values():
            client.close()


def _who_has(client: httpx.Client, pids: set[int]) -> int:
    """The process at the other end of a client's only connection."""
    pool = client._transport._pool  # type: ignore[attr-defined]
    port = pool.connections[0]._connection._network_stream.get_extra_info("client_addr")[1]
    for pid in pids:
        for connection in psutil.Process(pid).net_connections("tcp"):
            if connection.raddr and connection.raddr.port == port:
                return pid
    raise AssertionError("nobody has the connection")


def test_a_change_of_a_token_holds_in_every_worker_once_it_is_answered(server: RunningServer) -> None:
    headers = {"X-Auth-Token": server.login()}
    with Pinned(server) as (here, there):
        for number in range(20):
            here, there = there, here
            made = here.post(f"{INTERNAL}/tokens", json={"name": f"n{number}"}, headers=headers).json()
            statuses = [_infer(there, made["secret"])]
            change = {"models": ["other"]} if number % 2 else {"operations": ["list"]}
            assert here.patch(f"{INTERNAL}/tokens/{made['id']}", json=change, headers=headers).status_code == 200
            statuses.append(_infer(there, made["secret"]))
            assert here.delete(f"{INTERNAL}/tokens/{made['id']}", headers=headers).status_code == 200
            statuses.append(_infer(there, made["secret"]))
            assert statuses == [200, 404 if number % 2 else 403, 401]


def _infer(client: httpx.Client, secret: str) -> int:
    answer = client.post(
        "/api/v1/inference/scale", json={"inputs": {"x": [[1, 2, 3, 4]]}}, headers={"X-Access-Token": secret}
    )
    return answer.status_code


def test_a_default_is_known_to_all_workers(server: RunningServer, token: str) -> None:
    headers = {"X-Access-Token": token}
    with Pinned(server) as clients:
        for model, expected in (("scale", [True]), (None, [False])):
            server.ok("POST", "/models/activate", json={"model": model, "modality": "tensor"})
            for client in clients:
                told = lambda c=client: [m["default"] for m in c.get("/models", headers=headers).json()["models"]]  # noqa: E731
                wait_until("The default", lambda told=told, e=expected: told() == e)


def test_serving_means_that_every_worker_serves(server: RunningServer, token: str) -> None:
    def versions() -> set[Any]:
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: call_once(server, token), range(40)))
        return {body.get("version", str(body)) for _, body in answers}

    assert versions() == {1}
    server.deploy("scale", 2)
    assert versions() == {2}
    back = server.ok("POST", "/models/scale/deployment/rollback")
    server.wait_generation("scale", back["generation"])
    assert versions() == {1}
    gone = server.ok("DELETE", "/models/scale/deployment")
    server.wait_generation("scale", gone["generation"], "stopped")
    with ThreadPoolExecutor(4) as threads:
        assert {status for status, _ in threads.map(lambda _: call_once(server, token), range(40))} == {404}
    assert not hosts(server)
    server.deploy("scale", 1)
    assert versions() == {1}


def test_workers_share_batches(server: RunningServer, token: str) -> None:
    server.deploy("scale", 1, max_batch=8, max_delay_ms=300)
    before = server.observed("scale")["batch_sizes"]
    with Pinned(server) as clients, ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda client: _infer(client, token), clients)) == [200, 200]
    assert before == {}
    assert server.observed("scale")["batch_sizes"] == {"2": 1}
    server.deploy("scale", 1)


def test_swaps_under_load_lose_nothing(server: RunningServer, token: str) -> None:
    with Callers(server, token, 4) as callers:
        for number in range(6):
            server.deploy("scale", 2 - number % 2)
        callers.wait_more(50)
    callers.assert_all_answered(100)
    assert {body["version"] for _, body in callers.answers} == {1, 2}
    the_host(server)


def test_a_report_grows_while_another_process_validates(server: RunningServer) -> None:
    # Its checks go on for a while after the first: one that is over at once has nothing to tell before its end.
    assert server.send_upload("watched", demo_package()).status_code == 202
    seen: list[int] = []

    def look() -> bool:
        version = server.ok("GET", "/models/watched/versions/1")
        if version["status"] == "validating":
            seen.append(len(version["report"]))
        return bool(version["status"] == "valid")

    wait_until("The validation", look, every_s=0.01)
    assert seen == sorted(seen)
    assert max(seen) > 0, "nothing was told before the end"


def test_a_host_that_dies_is_started_again_for_all(server: RunningServer, token: str) -> None:
    with Callers(server, token, 4) as callers:
        for _ in range(2):
            callers.wait_more(30)
            victim = the_host(server)
            victim.kill()
            wait_gone([victim])
            the_host(server)
        callers.wait_more(30)
    callers.assert_all_answered(90)


def test_a_worker_that_is_killed_is_replaced_and_takes_only_its_own_connections(
    server: RunningServer, token: str
) -> None:
    with Callers(server, token, 6) as callers:
        callers.wait_more(50)
        victim, other = workers(server)
        starts = len(server.log_events("server.started"))
        mine = [one for one in victim.net_connections("tcp") if one.raddr]
        victim.kill()
        killed = time.monotonic()
        wait_until("The next worker", lambda: len(server.log_events("server.started")) > starts, START_S)
        took_s = time.monotonic() - killed
        callers.wait_more(50)
    assert other.is_running()
    assert len(callers.broken) <= len(mine)
    assert len(server.log_events("worker.died")) == 1
    assert len(workers(server)) == 2
    assert {status for status, _ in callers.answers} == {200}
    # 2 s on a machine that is not shared; see benchmarks/workers.py
    print(f"replaced after {took_s:.2f} s")


def test_counts_are_those_of_all_workers_whichever_answers(server: RunningServer, token: str) -> None:
    headers = {"X-Access-Token": token, "Content-Type": "application/json"}
    server.deploy("scale", 1, timeout_ms=20_000, max_batch=4)  # a new load, whose statistics begin at 0
    before, traffic_before = _answered(server.client), _traffic(server.ok("GET", "/system/stats"))
    with Pinned(server) as clients:
        for number, client in enumerate(clients):
            for _ in range(20 + number):
                assert _infer(client, token) == 200
            assert client.post("/api/v1/inference/scale", content=b"{", headers=headers).status_code == 400
        wait_until("The sum", lambda: {_answered(client) - before for client in clients} == {41})
        for client in clients:
            assert _metric(client, "pulvinar_requests_total", status="400") == 2
            assert _metric(client, "pulvinar_stage_seconds_count", stage="total") == before + 41
            stats = client.get("/v2/models/scale/stats", headers=headers).json()["model_stats"][0]
            assert stats["inference_count"] == stats["inference_stats"]["success"]["count"] == 41
        for name in ("pulvinar_host_restarts_total", "pulvinar_swaps_total"):
            assert len({_metric(client, name, model="scale") for client in clients}) == 1
        admin = {"X-Auth-Token": server.login()}

        def pages(path: str) -> list[Any]:
            return [client.get(f"{INTERNAL}/{path}", headers=admin).json() for client in clients]

        def requests_on_pages() -> list[int]:
            observed = [page["observed"] for page in pages("models/scale/deployment")]
            return [one["versions"][0]["requests"] for one in observed]

        wait_until("The pages' counts", lambda: requests_on_pages() == [41, 41])
        assert [page["observed"]["batch_sizes"] for page in pages("models/scale/deployment")] == [{"1": 41}] * 2
        assert [_traffic(page) - traffic_before for page in pages("system/stats")] == [43, 43]


def test_no_count_goes_back_when_a_worker_is_killed(server: RunningServer, token: str) -> None:
    pinned = Pinned(server)
    with pinned:
        victim, other = workers(server)
        here, there = pinned.clients[victim.pid], pinned.clients[other.pid]
        for _ in range(30):
            assert _infer(here, token) == 200
        shown = _answered(here)
        wait_until("The page's count", lambda: server.observed("scale")["versions"][0]["requests"] >= 30)
        starts = len(server.log_events("server.started"))
        victim.kill()
        wait_gone([victim])
        seen = [shown]
        while len(server.log_events("server.started")) == starts:
            seen.append(_answered(there))
        assert _infer(there, token) == 200
        seen.append(_answered(there))
    assert seen == sorted(seen)
    assert seen[-1] == shown + 1
    with Pinned(server) as clients:
        wait_until("The sum", lambda: {_answered(client) for client in clients} == {shown + 1})
    assert server.observed("scale")["versions"][0]["requests"] >= 31


def _answered(client: httpx.Client) -> float:
    return _metric(client, "pulvinar_requests_total", model="scale", status="200")


def _metric(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum over all series of one metric that have these labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in answer.text.splitlines() if line.startswith(name + "{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(one in line for one in wanted))


def _traffic(page: dict[str, Any]) -> int:
    """Requests of the model on the statistics page."""
    return sum(one["requests"] for one in page["models"] if one["model"] == "scale")


def test_a_reload_takes_over_what_has_changed_and_refuses_what_is_wrong(server: RunningServer, token: str) -> None:
    config = server.folder / "config.yaml"
    before = {one.pid for one in workers(server)}
    counted = _answered(server.client)
    with Callers(server, token, 3, fresh=True) as callers:
        config.write_text("{inference: {max_body_bytes: 2000}, log: {slow_ms: 0.001}}\n")
        assert server.cli("reload").returncode == 0
        wait_until("The reload", lambda: server.log_events("server.reloaded"), START_S)
        for _ in range(6):
            assert call_once(server, token, body=b'{"inputs": {"x": [[1, 2, 3, 4]]}}' + b" " * 3000)[0] == 413
        after = {one.pid for one in workers(server)}
        assert len(after) == 2
        assert not after & before
        wait_until("Lines of what is slow", lambda: len(server.log_events("request.slow")) > 6)
        config.write_text("inference: {max_body_bytes: many}\n")
        assert server.cli("reload").returncode in (0, 2)
        os.kill(server.process.pid, signal.SIGHUP)
        refusal = wait_until("The refusal", lambda: server.log_events("settings.refused"))[0]
        assert "max_body_bytes" in refusal["reason"]
        assert {one.pid for one in workers(server)} == after
        config.unlink()
        callers.wait_more(20)
    callers.assert_all_answered(50)
    # Workers that have ended handed over all that they had counted.
    wait_until("The sum", lambda: _answered(server.client) == counted + len(callers.answers))


def test_a_reload_whose_workers_do_not_start_leaves_the_old_ones(server: RunningServer, token: str) -> None:
    # A machine so busy that three failing starts take longer than a good one may ends the reload for that reason.
    server.expected_in_log.append("worker.not_ready")
    config = server.folder / "config.yaml"
    before = {one.pid for one in workers(server)}
    config.write_text("database: {url: 'postgresql://postgres@127.0.0.1:9/none'}\n")
    os.kill(server.process.pid, signal.SIGHUP)
    with Callers(server, token, 2, fresh=True) as callers:
        wait_until("The end of the reload", lambda: server.log_events("reload.given_up"), START_S)
        assert {one.pid for one in workers(server)} == before
    config.unlink()
    callers.assert_all_answered(20)
    assert call_once(server, token)[0] == 200


def _under_way(server: RunningServer, model: str) -> int:
    """Requests that wait or run, of a model that takes one at a time."""
    observed = server.ok("GET", f"/models/{model}/deployment")["observed"]
    return int(observed["queue"]["depth"] + observed["slots"]["busy"])


def test_a_stop_answers_what_is_under_way(tmp_path: Path) -> None:
    with _server(tmp_path, PULVINAR_SERVER__DRAIN_S="20") as server:
        server.upload("slow", onnx_models.counting())
        server.deploy("slow", max_batch=1)
        token = _known_token(server)
        before = time.perf_counter()
        assert call_once(server, token, model="slow", body=b'{"inputs": {"n": [[300]]}}')[0] == 200
        rounds = round(300 * 1.0 / (time.perf_counter() - before))
        everybody = family(server)
        with ThreadPoolExecutor(2) as threads:
            body = b'{"inputs": {"n": [[%d]]}}' % rounds
            calls = [threads.submit(call_once, server, token, model="slow", body=body) for _ in range(2)]
            wait_until("Both runs", lambda: _under_way(server, "slow") == 2)
            server.terminate()
            answers = [call.result() for call in calls]
        assert [status for status, _ in answers] == [200, 200], answers
        server.wait_stopped()
        wait_gone(everybody)


def test_nothing_outlives_a_control_process_that_is_killed_and_a_restart_serves_again(tmp_path: Path) -> None:
    with _server(tmp_path) as server:
        server.expected_in_log.append("control.lost")
        server.upload("scale", onnx_models.scale(2))
        server.deploy("scale")
        token = _known_token(server)
        everybody = family(server)
        assert len(everybody) == 4
        server.kill()
        wait_gone(everybody, server.drain_s + 10)
        server.start()
        assert call_once(server, token)[0] == 200
        everybody = family(server)
        # One that is stuck and hears no signal ends as well.
        stuck = workers(server)[0]
        stuck.suspend()
        server.kill()
        wait_gone([one for one in everybody if one != stuck], server.drain_s + 20)
        stuck.resume()
        wait_gone([stuck], server.drain_s + 8)


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [
            sys.executable,
            str(RUN),
            "--data-dir",
            str(tmp_path / "data"),
            "--port",
            port,
            "--workers",
            "2",
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 4
    assert done.stderr.strip() == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use."
    assert done.stdout == ""
