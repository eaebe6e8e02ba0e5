"""Every route that changes something writes an entry of the audit log: by whom, from where, and no secrets in it.

Each call has an id of its own, by which its entry is found. A new route fails here until it is in a list.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx
import pyotp
import pytest

from app.main import internal_api
from core.settings import Settings
from tests.acceptance import onnx_models
from tests.conftest import Demo
from tests.servers import INTERNAL, PASSWORD, ROOT, RunningServer

CHANGES_NOTHING = {
    "POST /pipelines/validate": "only says whether a definition could be accepted",
    "POST /auth/refresh": "goes on with a session whose beginning is there",
}
ELSEWHERE = {
    # What they change takes a search, a conversion or a transfer under way; their own tests look at these actions.
    "DELETE /imports/{import_id}": "import.cancel",
    "PUT /models/{name}/versions/{number}/recommendation": "version.follow",
    "DELETE /models/{name}/versions/{number}/recommendation": "version.unfollow",
    "POST /models/{name}/versions/{number}/derived/{artifact_id}/rebuild": "derived.rebuild",
    "DELETE /models/{name}/versions/{number}/derived/{artifact_id}": "derived.delete",
}
PIPELINE = b"""
inputs: {x: "tensor FP32 [-1, 4]"}
nodes:
  twice: {model: audited, input: x}
outputs: {y: twice.y}
"""


class Caller:
    """Calls a route with an id, and remembers which route that was."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.routes: dict[str, str] = {}
        self.token = server.login()

    def __call__(self, route: str, *, token: str | None = None, **options: Any) -> Any:
        method, path = route.split(" ")
        values = options.pop("path", {})
        request_id = f"audited-{len(self.routes)}"
        self.routes[request_id] = route
        answer: httpx.Response = self.server.client.request(
            method,
            INTERNAL + re.sub(r"\{(\w+)\}", lambda name: str(values[name[1]]), path) + options.pop("query", ""),
            headers={"X-Auth-Token": token or self.token, "X-Request-ID": request_id, "User-Agent": "auditor"},
            **options,
        )
        assert answer.is_success, f"{route}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None


@pytest.fixture(scope="module")
def called(demo: Demo) -> Caller:
    call = Caller(demo.server)
    _users(call)
    _tokens_and_rules(call)
    _models(call)
    return call


def _users(call: Caller) -> None:
    body = {"name": "audited", "password": PASSWORD, "role": "viewer"}
    user = {"user_id": call("POST /users", json=body)["id"]}
    call("PATCH /users/{user_id}", path=user, json={"role": "operator"})
    login = {"username": "audited", "password": PASSWORD}
    token, _ = (call("POST /auth/login", json=login)["token"] for _ in range(2))
    sessions = call.server.client.get(f"{INTERNAL}/auth/sessions", headers={"X-Auth-Token": token}).json()["items"]
    ended = next(one["id"] for one in sessions if not one["current"])
    call("DELETE /auth/sessions/{session_id}", token=token, path={"session_id": ended})
    call("POST /auth/password", token=token, json={"current_password": PASSWORD, "new_password": PASSWORD + "!"})
    begun = call("POST /auth/totp", token=token, json={"current_password": PASSWORD + "!"})
    code = pyotp.TOTP(begun["secret"]).now()
    codes = call("POST /auth/totp/confirm", token=token, json={"code": code})["recovery_codes"]
    codes = call("POST /auth/totp/recovery-codes", token=token, json={"code": codes[0]})["recovery_codes"]
    half = call("POST /auth/login", json={**login, "password": PASSWORD + "!"})["token"]
    del call.routes[f"audited-{len(call.routes) - 1}"]  # written down once its second half has come
    call.routes["half"] = "POST /auth/login"
    whole = call("POST /auth/second-factor", token=half, json={"code": codes[0]})["token"]
    call("POST /auth/totp/disable", token=whole, json={"code": codes[1]})
    begun = call("POST /auth/totp", token=whole, json={"current_password": PASSWORD + "!"})
    # The code of this moment may be used up by the enrolment before; the next one is accepted already.
    later = pyotp.TOTP(begun["secret"]).at(int(time.time()) + 30)
    call("POST /auth/totp/confirm", token=whole, json={"code": later})
    call("DELETE /users/{user_id}/totp", path=user)
    token = call("POST /auth/login", json={**login, "password": PASSWORD + "!"})["token"]
    call("POST /auth/logout", token=token)
    call("DELETE /users/{user_id}/sessions", path=user)
    call("DELETE /users/{user_id}", path=user)


def _tokens_and_rules(call: Caller) -> None:
    token = {"token_id": call("POST /tokens", json={"name": "audited"})["id"]}
    call("PATCH /tokens/{token_id}", path=token, json={"max_concurrency": 3})
    call("POST /tokens/{token_id}/rotate", path=token)
    call("DELETE /tokens/{token_id}", path=token)
    rule = {"cidr": "198.51.100.0/24", "action": "deny", "scope": "external"}
    call("DELETE /access-rules/{rule_id}", path={"rule_id": call("POST /access-rules", json=rule)["id"]})
    old = next(key["kid"] for key in call.server.ok("GET", "/keys")["items"] if key["state"] == "signing")
    call("POST /keys/rotate", json={})
    call.token = call.server.client.post(
        f"{INTERNAL}/auth/login", json={"username": "admin", "password": PASSWORD}
    ).json()["token"]
    call("DELETE /keys/{kid}", path={"kid": old})
    call.server.forget_login()
    tenant = {"tenant_id": call("POST /tenants", json={"name": "audited"})["id"]}
    call("PATCH /tenants/{tenant_id}", path=tenant, json={"note": "x"})
    call("DELETE /tenants/{tenant_id}", path=tenant)


def _models(call: Caller) -> None:
    server, name, version = call.server, {"name": "audited"}, {"name": "audited", "number": 1}
    call("POST /models", files={"file": ("model.onnx", onnx_models.scale())}, data={"name": "audited"})
    server.wait_version("audited", 1)
    call("PATCH /models/{name}", path=name, json={"description": "x"})
    call("POST /models/{name}/versions", path=name, files={"file": ("model.onnx", onnx_models.scale(3))})
    server.wait_version("audited", 2)
    call("PUT /sharing/{name}", path=name, json={"tenants": None})
    call(
        "POST /models/{name}/samples", path=name, files={"file": ("x.json", b'{"inputs": {"x": [[1, 2, 3, 4]]}}')}
    )
    (sample,) = server.ok("GET", "/models/audited/samples")["items"]
    call("DELETE /models/{name}/samples/{sample_id}", path={**name, "sample_id": sample["id"]})
    call(
        "POST /models/{name}/samples", path=name, files={"file": ("x.json", b'{"inputs": {"x": [[1, 2, 3, 4]]}}')}
    )
    call("DELETE /models/{name}/samples", path=name)
    for number in (1, 2):
        done = call("PUT /models/{name}/deployment", path=name, json={"version": number})
        server.wait_generation("audited", done["generation"])
    call("POST /models/activate", json={"model": "audited"})
    call("POST /models/activate", json={"model": None, "modality": "tensor"})
    call("POST /models/{name}/deployment/rollback", path=name)
    call("POST /pipelines", query="?name=audited-line", content=PIPELINE)
    line = {"name": "audited-line"}
    call("POST /pipelines/{name}/versions", path=line, content=PIPELINE + b"description: again\n")
    call("PUT /pipelines/{name}/deployment", path=line, json={"version": 1})
    call("DELETE /pipelines/{name}/deployment", path=line)
    call("DELETE /pipelines/{name}", path=line)
    call("DELETE /models/{name}/deployment", path=name)
    call("POST /models/{name}/versions/{number}/optimise", path=version, json={})
    call("DELETE /models/{name}/versions/{number}/optimise", path=version)
    call("POST /models/{name}/versions/{number}/validate", path={"name": "audited", "number": 2})
    server.wait_version("audited", 2)
    for change in ("POST {}/archive", "POST {}/restore", "DELETE {}"):
        call(change.format("/models/{name}/versions/{number}"), path={"name": "audited", "number": 2})
    call("DELETE /models/{name}", path=name)
    call("POST /imports", json={"name": "fetched", "source": "hf:nobody/nothing"})


def _changing() -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, operations in internal_api(Settings()).openapi()["paths"].items()
        for method in operations
        if method != "get"
    }


def test_every_route_that_changes_something_writes_it_down(called: Caller) -> None:
    entries = called.server.ok("GET", "/audit?limit=500")["items"]
    by_id = {entry["request_id"]: entry for entry in entries}
    silent = {route for request_id, route in called.routes.items() if request_id not in (*by_id, "half")}
    assert not silent
    assert _changing() - set(called.routes.values()) - set(ELSEWHERE) == set(CHANGES_NOTHING)
    for request_id in called.routes:
        if request_id != "half":
            entry = by_id[request_id]
            assert entry["actor"] in ("admin", "audited"), entry
            assert entry["address"] == "127.0.0.1", entry
            assert entry["subject"], entry
            if entry["action"].endswith((".update", ".put")):
                assert "before" in entry["detail"], entry


def test_what_takes_more_than_a_call_is_looked_at_elsewhere() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "core/control").glob("*.py"))
    tests = "\n".join(
        path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.name not in __file__
    )
    for route, action in ELSEWHERE.items():
        assert route in _changing()
        assert f'"{action}"' in source, action
        assert action in tests, f"no test looks for {action}"


def test_no_secret_is_in_the_log_of_changes(called: Caller) -> None:
    text = json.dumps(called.server.ok("GET", "/audit?limit=500"))
    for planted in (PASSWORD, "pv_", "otpauth", called.token):
        assert planted not in text, planted
