"""Deploy, roll back, undeploy, restart, crash: what is desired is what is served, and callers do not notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import is_cat, refused
from tests.acceptance.pictures import CAT_JPEG
from tests.conftest import Demo, StartServer
from tests.servers import RunningServer, demo_package, wait_until

CALL: dict[str, Any] = {"json": {"inputs": {"x": [[1, 2, 3, 4]]}}}


def states_of(observed: Mapping[str, Any]) -> dict[int, str]:
    """The state of each version that is in memory and answers."""
    return {row["version"]: row["state"] for row in observed["versions"] if row["state"] != "draining"}


def _factor(answer: httpx.Response) -> float:
    assert answer.status_code == 200, answer.text
    factor: float = answer.json()["outputs"][0]["data"][0]
    return factor


def _two_versions(server: RunningServer, name: str = "scale", first: float = 2, second: float = 3) -> str:
    """A model with version 1 in service, version 2 ready, and a token for it."""
    server.upload(name, onnx_models.scale(first))
    server.deploy(name, 1)
    assert server.upload(name, onnx_models.scale(second), version=True) == 2
    return server.token()


@pytest.fixture
def both(demo: Demo) -> Iterator[tuple[RunningServer, str]]:
    """The demo server with two versions of `scale2` (factors 22 and 33) and a token; all gone after the test."""
    server = demo.server
    token = _two_versions(server, "scale2", 22, 33)
    yield server, token
    if server.ok("GET", "/models/scale2/deployment")["desired"]["running"]:
        gone = server.ok("DELETE", "/models/scale2/deployment")
        server.wait_generation("scale2", gone["generation"], "stopped")
    server.ok("DELETE", "/models/scale2")


class Caller:
    """An application that calls without a pause until it is told to stop."""

    def __init__(self, server: RunningServer, token: str, model: str) -> None:
        self.answers: list[httpx.Response] = []
        self._server = server
        self._token = token
        self._model = model
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.answers.append(self._server.infer(self._model, self._token, **CALL))


def test_no_request_fails_while_version_2_comes_and_goes_ten_times(both: tuple[RunningServer, str]) -> None:
    server, token = both
    with Caller(server, token, "scale2") as one, Caller(server, token, "scale2") as other:
        for _ in range(10):
            server.deploy("scale2", 2)
            back = server.ok("POST", "/models/scale2/deployment/rollback")
            server.wait_generation("scale2", back["generation"])
        wait_until("200 answers", lambda: len(one.answers) + len(other.answers) >= 200)
    answers = one.answers + other.answers
    assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers if a.status_code != 200][
        :3
    ]
    assert {(answer.json()["version"], _factor(answer)) for answer in answers} == {(1, 22.0), (2, 33.0)}
    assert states_of(server.observed("scale2")) == {1: "serving"}


def test_both_versions_share_the_traffic_by_weight(both: tuple[RunningServer, str]) -> None:
    server, token = both
    traffic = [{"version": 1, "weight": 3}, {"version": 2, "weight": 1}]
    accepted = server.ok("PUT", "/models/scale2/deployment", json={"traffic": traffic})
    server.wait_generation("scale2", accepted["generation"])
    factors = [_factor(server.infer("scale2", token, **CALL)) for _ in range(120)]
    assert 10 < factors.count(33.0) < 60
    assert {_factor(server.infer("scale2", token, query="?version=2", **CALL)) for _ in range(5)} == {33.0}


def test_a_deployment_survives_a_restart(start_server: StartServer) -> None:
    server = start_server()
    token = _two_versions(server)
    server.deploy("scale", 2, max_batch=7)
    server.restart()
    assert _factor(server.infer("scale", token, **CALL)) == 3.0
    assert server.ok("GET", "/models/scale/deployment")["desired"]["max_batch"] == 7
    gone = server.ok("DELETE", "/models/scale/deployment")
    server.wait_generation("scale", gone["generation"], "stopped")
    server.restart()
    refused(server.infer("scale", token, **CALL), 404, "model_not_found")


def test_a_version_that_fails_to_load_leaves_the_old_one_serving(both: tuple[RunningServer, str]) -> None:
    server, token = both
    sha256 = server.ok("GET", "/models/scale2/versions/2")["sha256"]
    file = server.data_dir / "artifacts" / sha256[:2] / sha256 / "model.onnx"
    file.chmod(0o600)
    file.write_bytes(b"rotten" * 100)
    observed = server.deploy("scale2", 2, state="failed")
    assert "cannot load" in observed["reason"]
    assert "Version 1 keeps serving" in observed["reason"]
    assert str(server.data_dir) not in observed["reason"]
    assert states_of(observed) == {1: "serving"}
    assert _factor(server.infer("scale2", token, **CALL)) == 22.0
    assert server.client.get("/health/ready").status_code == 200
    server.deploy("scale2", 1)
    assert _factor(server.infer("scale2", token, **CALL)) == 22.0


def test_a_server_that_cannot_serve_all_it_should_is_not_ready(start_server: StartServer) -> None:
    server = start_server()
    token = _two_versions(server)
    server.stop()
    sha256 = next(one for one in server.artifacts() if _is_version(server, one, 2.0))
    folder = server.data_dir / "artifacts" / sha256[:2] / sha256
    folder.rename(server.folder / "taken away")
    server.start(wait_ready=False)
    wait_until("The failed load", lambda: "failed" in server.client.get("/health/ready").text)
    answer = server.client.get("/health/ready")
    assert answer.status_code == 503
    assert list(answer.json()["not_ready"]) == ["scale"]
    assert "missing" in answer.json()["not_ready"]["scale"]
    assert server.client.get("/health/live").status_code == 200
    assert server.client.get("/health").json()["status"] == "degraded"
    answer = server.infer("scale", token, **CALL)
    refused(answer, 503, "not_ready")
    assert int(answer.headers["retry-after"]) >= 1
    refused(server.infer("scale", server.token(models=["others"]), **CALL), 404, "model_not_found")
    # It is tried again by itself.
    (server.folder / "taken away").rename(folder)
    server.wait_ready()
    assert _factor(server.infer("scale", token, **CALL)) == 2.0


def _is_version(server: RunningServer, sha256: str, factor: float) -> bool:
    data = (server.data_dir / "artifacts" / sha256[:2] / sha256 / "model.onnx").read_bytes()
    return data == onnx_models.scale(factor)


def test_what_cannot_be_deployed_or_rolled_back(start_server: StartServer) -> None:
    server = start_server()
    token = _two_versions(server)
    put = "/models/scale/deployment"
    refused(server.api("PUT", put, json={"version": 3}), 404, "not_found", "version 3")
    refused(server.api("PUT", "/models/nobody/deployment", json={"version": 1}), 404, "model_not_found")
    refused(server.api("GET", "/models/nobody/deployment"), 404, "model_not_found")
    refused(server.api("POST", f"{put}/rollback"), 409, "conflict", "no earlier deployment")
    refused(server.api("PUT", put, json={"version": 1, "engine": "fake"}), 422, "unprocessable", "fake")
    refused(server.api("DELETE", "/models/scale"), 409, "conflict")
    assert _factor(server.infer("scale", token, **CALL)) == 2.0
    gone = server.ok("DELETE", put)
    server.wait_generation("scale", gone["generation"], "stopped")
    refused(server.api("DELETE", put), 404, "not_found")
    assert server.api("DELETE", "/models/scale").status_code == 204
    refused(server.api("GET", "/models/scale"), 404, "model_not_found")
    refused(server.api("DELETE", "/models/scale"), 404, "model_not_found")
    assert not server.artifacts()
    # The name is free again, and begins anew.
    server.upload("scale", onnx_models.scale(5))
    refused(server.api("GET", put), 404, "not_found", "never been deployed")
    server.deploy("scale")
    assert _factor(server.infer("scale", token, **CALL)) == 5.0


def test_a_newer_wish_overtakes_an_older_one(both: tuple[RunningServer, str]) -> None:
    server, token = both
    generation = 0
    for version in (2, 1, 2, 1, 2):
        generation = server.ok("PUT", "/models/scale2/deployment", json={"version": version})["generation"]
    assert states_of(server.wait_generation("scale2", generation)) == {2: "serving"}
    assert _factor(server.infer("scale2", token, **CALL)) == 33.0


def test_a_crash_during_validation_leaves_a_version_that_is_validated_after_all(start_server: StartServer) -> None:
    server = start_server()
    answer = server.send_upload("classifier", demo_package())
    assert answer.json()["version"]["status"] == "validating"
    wait_until(
        "The first check", lambda: server.ok("GET", "/models/classifier/versions/1")["report"], every_s=0.005
    )
    server.kill()
    server.start()
    version = server.wait_version("classifier", 1, timeout_s=30)
    assert version["status"] == "valid", version["report"]
    server.deploy("classifier")
    assert is_cat(server.infer("classifier", server.token(), content=CAT_JPEG))


def test_a_crash_under_load_is_survived(start_server: StartServer) -> None:
    server = start_server()
    token = _two_versions(server)
    failures: list[Exception] = []

    def call() -> None:
        try:
            while True:
                server.infer("scale", token, **CALL)
        except Exception as error:  # the connection breaks with the server
            failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    wait_until("Load", lambda: len(server.log_events("request")) > 50)
    server.process.kill()
    for caller in callers:
        caller.join(10)
    assert len(failures) == 3
    server.kill()
    server.start()
    assert _factor(server.infer("scale", token, **CALL)) == 2.0


def test_a_version_can_be_validated_again(both: tuple[RunningServer, str]) -> None:
    server, token = both
    again = server.api("POST", "/models/scale2/versions/1/validate")
    assert again.status_code == 202
    assert again.json()["status"] == "validating"
    refused(server.api("POST", "/models/scale2/versions/1/validate"), 409, "conflict", "already")
    assert server.wait_version("scale2", 1)["status"] == "valid"
    assert _factor(server.infer("scale2", token, **CALL)) == 22.0


def test_every_change_is_in_the_audit_log(start_server: StartServer) -> None:
    server = start_server()
    token = _two_versions(server)
    server.infer("scale", token, **CALL)
    server.deploy("scale", 2)
    server.ok("POST", "/models/scale/deployment/rollback")
    server.ok("PATCH", "/models/scale", json={"description": "Twice."})
    server.ok("POST", "/models/scale/versions/2/validate")
    server.wait_version("scale", 2)
    made = server.new_token(name="audited")
    server.ok("PATCH", f"/tokens/{made['id']}", json={"rate": "1/hour"})
    server.ok("POST", f"/tokens/{made['id']}/rotate")
    server.ok("DELETE", f"/tokens/{made['id']}")
    number = server.user("audited", "viewer")
    server.ok("PATCH", f"/users/{number}", json={"role": "operator", "password": "another long one"})
    server.ok("DELETE", f"/users/{number}")
    gone = server.ok("DELETE", "/models/scale/deployment")
    server.wait_generation("scale", gone["generation"], "stopped")
    server.ok("DELETE", "/models/scale", headers={"X-Request-ID": "the-last-one"})
    entries = server.ok("GET", "/audit?limit=500")["items"]
    assert {entry["action"] for entry in entries} == {
        "user.create",
        "auth.login",
        "model.create",
        "version.create",
        "version.validate",
        "deployment.put",
        "deployment.rollback",
        "deployment.delete",
        "model.update",
        "model.delete",
        "token.create",
        "token.update",
        "token.rotate",
        "token.revoke",
        "user.update",
        "user.delete",
    }
    last = entries[0]
    assert (last["actor"], last["action"], last["subject"]) == ("admin", "model.delete", "scale")
    assert (last["address"], last["request_id"]) == ("127.0.0.1", "the-last-one")
    text = server.api("GET", "/audit?limit=500").text
    for secret in (made["secret"], "another long one", server.login()):
        assert secret not in text
    only = server.ok("GET", "/audit?action=token.&subject=audited")["items"]
    assert {entry["action"] for entry in only} == {"token.create", "token.update", "token.rotate", "token.revoke"}


@pytest.fixture(scope="module")
def crowd(demo: Demo) -> RunningServer:
    for i in range(5):
        demo.server.new_token(name=f"crowd{i}")
        demo.server.user(f"crowd{i}", "viewer")
        assert demo.server.send_upload(f"crowd{i}", onnx_models.scale()).status_code == 202
    for i in range(5):
        demo.server.wait_version(f"crowd{i}", 1)
    return demo.server


@pytest.mark.parametrize(
    ("path", "key"), [("/tokens", "id"), ("/users", "id"), ("/audit", "id"), ("/models", "name")]
)
def test_lists_page_without_gaps_or_repeats(crowd: RunningServer, path: str, key: str) -> None:
    everything = [item[key] for page in _pages(crowd, path, 500) for item in page]
    assert len(set(everything)) == len(everything) >= 5
    pages = _pages(crowd, path, 4)
    assert all(1 <= len(page) <= 4 for page in pages)
    assert [item[key] for page in pages for item in page] == everything


def _pages(server: RunningServer, path: str, limit: int) -> list[list[Any]]:
    """All pages of a list, however much other tests have added to it."""
    pages: list[list[Any]] = []
    parameters: dict[str, Any] = {"limit": limit}
    while True:
        page = server.ok("GET", path, params=parameters)
        pages.append(page["items"])
        if page["next_cursor"] is None:
            return pages
        parameters["cursor"] = page["next_cursor"]
