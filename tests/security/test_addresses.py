"""Who may come from where: behind a trusted proxy, with rules, and with what callers make up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.servers import INTERNAL, RunningServer, wait_until

OFFICE, ELSEWHERE = "203.0.113.5", "198.51.100.7"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    variables = {"PULVINAR_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]'}
    with RunningServer(tmp_path_factory.mktemp("addresses"), variables) as server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale")
        yield server


@pytest.fixture
def free(server: RunningServer) -> Iterator[RunningServer]:
    """The server, without any rule afterwards."""
    yield server
    for rule in server.ok("GET", "/access-rules")["items"]:
        server.ok("DELETE", f"/access-rules/{rule['id']}?force=true")


def add(server: RunningServer, action: str, cidr: str, scope: str, **more: Any) -> Any:
    body = {"cidr": cidr, "action": action, "scope": scope, **more}
    return server.ok("POST", "/access-rules", json=body, headers={"X-Forwarded-For": OFFICE})


def infer(server: RunningServer, token: str, address: str, **headers: str) -> httpx.Response:
    """Over the express way."""
    return server.infer(
        "scale",
        token,
        json={"inputs": {"x": [[1, 2, 3, 4]]}},
        headers={"X-Forwarded-For": address, **headers},
    )


def test_external_rules_hold_on_every_way_in(free: RunningServer) -> None:
    token = free.token()
    add(free, "deny", "198.51.100.0/24", "external")
    assert infer(free, token, OFFICE).status_code == 200
    refused(infer(free, token, ELSEWHERE), 403, "forbidden")
    refused(infer(free, token, f"::ffff:{ELSEWHERE}"), 403, "forbidden")
    refused(infer(free, token, f"{OFFICE}, {ELSEWHERE}"), 403)  # the first is what the caller made up
    for path in ("/api/v1/models", "/api/v1/inference/scale?version=1", "/v2", "/docs", "/nothing/here"):
        answer = free.client.get(path, headers={"X-Access-Token": token, "X-Forwarded-For": ELSEWHERE})
        assert answer.status_code == 403, path
    assert free.client.get("/v2", headers={"X-Forwarded-For": ELSEWHERE}).json()["error"]
    url = f"ws://127.0.0.1:{free.port}/api/v1/stream/scale"
    for address, status in ((ELSEWHERE, 403), (OFFICE, 401)):
        with pytest.raises(InvalidStatus) as caught:
            connect(url, additional_headers={"X-Forwarded-For": address}, proxy=None)
        assert caught.value.response.status_code == status
    for path in ("/health/live", "/health/ready", "/v2/health/live"):
        assert free.client.get(path, headers={"X-Forwarded-For": ELSEWHERE}).status_code == 200, path
    # The other side has rules of its own.
    assert free.api("GET", "/auth/me", headers={"X-Forwarded-For": ELSEWHERE}).status_code == 200


def test_a_handshake_that_is_none_is_refused_behind_a_proxy_too(server: RunningServer) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "X-Forwarded-For": OFFICE}
    assert server.client.get("/api/v1/stream/scale", headers=headers).status_code == 400
    assert "Traceback" not in server.log()


def test_internal_rules_hold_before_anybody_signs_in(free: RunningServer) -> None:
    add(free, "allow", "203.0.113.0/24", "internal", note="the office")
    add(free, "allow", "127.0.0.1", "internal")
    headers = {"X-Forwarded-For": ELSEWHERE}
    body = {"username": "admin", "password": "x"}
    refused(free.client.post(f"{INTERNAL}/auth/login", json=body, headers=headers), 403, "forbidden")
    refused(free.client.get(f"{INTERNAL}", headers=headers), 403)
    refused(free.client.get("/docs/internal", headers=headers), 403)
    refused(free.api("GET", "/users", headers=headers), 403)
    assert free.api("GET", "/users", headers={"X-Forwarded-For": OFFICE}).status_code == 200
    assert infer(free, free.token(), ELSEWHERE).status_code == 200


def test_nobody_locks_themselves_out_unforced(free: RunningServer) -> None:
    office = {"X-Forwarded-For": OFFICE}

    def send(**body: Any) -> httpx.Response:
        return free.api("POST", "/access-rules", json={"scope": "internal", **body}, headers=office)

    assert OFFICE in refused(send(cidr="10.0.0.0/8", action="allow"), 409, "conflict")["message"]
    refused(send(cidr=OFFICE, action="deny"), 409, "conflict")
    assert free.ok("GET", "/access-rules")["items"] == []
    assert send(cidr="203.0.113.0/24", action="allow").status_code == 201
    kept = send(cidr="127.0.0.0/8", action="allow").json()["id"]
    first = free.ok("GET", "/access-rules")["items"][0]["id"]
    refused(free.api("DELETE", f"/access-rules/{first}", headers=office), 409, "conflict")
    assert free.api("DELETE", f"/access-rules/{kept}", headers=office).status_code == 200
    refused(free.api("GET", "/users"), 403)
    # From this machine's command line there is always a way back in.
    listed = free.cli("access-rule", "list").stdout.split()
    assert listed == [str(first), "internal", "allow", "203.0.113.0/24"]
    assert free.cli("access-rule", "check", "127.0.0.1", "--scope", "internal").returncode == 1
    removed = free.cli("access-rule", "remove", str(first))
    assert removed.returncode == 0, removed.stderr
    wait_until("The way in", lambda: free.api("GET", "/users").status_code == 200)
    assert free.cli("access-rule", "add", "deny", "127.0.0.0/8", "--scope", "internal").returncode == 1
    assert send(cidr=OFFICE, action="deny", force=True).status_code == 201
    refused(free.api("GET", "/users", headers=office), 403)


def test_would_this_address_pass(free: RunningServer) -> None:
    rule = add(free, "deny", "2001:db8::/32", "external")["id"]
    asked = free.ok("GET", "/access-rules/check?scope=external&address=2001:db8::5")
    assert asked == {"address": "2001:db8::5", "scope": "external", "allowed": False, "rule_id": rule}
    assert free.ok("GET", "/access-rules/check?scope=external")["allowed"] is True
    refused(free.api("GET", "/access-rules/check?scope=external&address=x"), 422)
    for body in (
        {"cidr": "10.0.0.0/99"},
        {"cidr": "x; DROP TABLE access_rules"},
        {"cidr": "10.0.0.1", "scope": "all"},
    ):
        refused(free.api("POST", "/access-rules", json={"action": "deny", "scope": "external", **body}), 422)
    refused(free.api("DELETE", "/access-rules/999999"), 404)
    assert free.ok("GET", "/audit?action=access_rule.")["items"][0]["subject"] == "2001:db8::/32"


def test_a_token_keeps_to_its_networks(server: RunningServer) -> None:
    token = server.token(ip_allow=["::ffff:203.0.113.0/120"])
    assert infer(server, token, OFFICE).status_code == 200
    assert infer(server, token, f"::ffff:{OFFICE}").status_code == 200
    refused(infer(server, token, ELSEWHERE), 403)
    refused(infer(server, token, f"{OFFICE}, {ELSEWHERE}"), 403)
    refused(infer(server, token, "127.0.0.1", Forwarded=f"for={OFFICE}"), 403)


def test_whoever_is_no_trusted_proxy_is_not_believed(demo: Any) -> None:
    token = demo.server.token(ip_allow=[OFFICE])
    for header, value in (("X-Forwarded-For", OFFICE), ("Forwarded", f"for={OFFICE}"), ("X-Real-IP", OFFICE)):
        answer = demo.server.client.get("/api/v1/models", headers={"X-Access-Token": token, header: value})
        refused(answer, 403, "forbidden")
