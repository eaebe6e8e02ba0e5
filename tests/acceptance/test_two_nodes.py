"""Two servers on one PostgreSQL and one store: one truth, also after one was cut off from the database."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.acceptance.callers import Callers, call_once
from tests.cut_off import CutOff
from tests.databases import fresh_database
from tests.servers import RunningServer, wait_until

CALL: dict[str, Any] = {"json": {"inputs": {"x": [[1, 2, 3, 4]]}}}
TOLD_WITHIN_S = 0.2


class Two:
    """`far` reaches the database through `way`."""

    def __init__(self, near: RunningServer, far: RunningServer, way: CutOff) -> None:
        self.near, self.far, self.way = near, far, way


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("nodes")
    with fresh_database("postgresql", folder) as url, CutOff(urlsplit(url).port or 5432) as way:
        far_url = url.replace(f":{urlsplit(url).port}", f":{way.port}")
        near = RunningServer(folder / "near", _variables(folder, url, "near"))
        far = RunningServer(folder / "far", _variables(folder, far_url, "far"))
        far.expected_in_log.append("database")
        with near:
            # Sign-in tokens of one hold on the other where both have the same keys.
            (folder / "far/data").mkdir(parents=True)
            shutil.copytree(near.data_dir / "keys", far.data_dir / "keys")
            with far:
                near.upload("scale", onnx_models.scale(2))
                near.deploy("scale")
                yield Two(near, far, way)


def _variables(folder: Path, url: str, node: str) -> dict[str, str]:
    return {
        "PULVINAR_DATABASE__URL": url,
        "PULVINAR_DATABASE__TIMEOUT_S": "3",
        "PULVINAR_DATABASE__POLL_S": "0.15",
        "PULVINAR_STORE__DIRECTORY": str(folder / "store"),
        "PULVINAR_SERVER__NODE": node,
    }


def _serves(server: RunningServer, token: str, model: str = "scale") -> bool:
    return server.infer(model, token, **CALL).status_code == 200


def test_what_is_deployed_on_one_is_served_by_both_and_each_tells_of_itself(two: Two) -> None:
    token = two.near.token()
    wait_until("That the other one serves", lambda: _serves(two.far, token))
    wait_until("That it says so", lambda: two.far.observed("scale")["state"] == "serving")
    here = two.near.observed("scale")
    assert (here["node"], here["state"]) == ("near", "serving")
    assert [(one["node"], one["alive"], one["state"]) for one in here["elsewhere"]] == [("far", True, "serving")]
    listed = two.near.ok("GET", "/system/nodes")["nodes"]
    assert [(one["name"], one["here"], one["alive"]) for one in listed] == [
        ("far", False, True),
        ("near", True, True),
    ]
    assert all(abs(one["clock_ahead_ms"]) < 1000 for one in listed)
    # A change on the other one comes back.
    two.far.upload("scale", onnx_models.scale(3), version=True)
    generation = two.far.ok("PUT", "/models/scale/deployment", json={"version": 2})["generation"]
    for server in (two.near, two.far):
        server.wait_generation("scale", generation)
        assert server.infer("scale", token, **CALL).json()["outputs"][0]["data"][0] == 3


def test_a_token_that_one_revokes_the_other_refuses_at_once(two: Two) -> None:
    other = two.near.token()
    wait_until("That the other one knows it", lambda: _serves(two.far, other))
    with Callers(two.near, other, 2), Callers(two.far, other, 2) as callers:
        callers.wait_more(20)
        # One of a few: on a machine that does much else, the database itself may be late.
        late_s = [_revoked_after_s(two)]
        while late_s[-1] > TOLD_WITHIN_S and len(late_s) < 10:
            late_s.append(_revoked_after_s(two))
        callers.wait_more(20)
    assert late_s[-1] <= TOLD_WITHIN_S, late_s


def _revoked_after_s(two: Two) -> float:
    """How long after the answer to a revocation the last call began that the other server still let in."""
    made = two.near.new_token()
    wait_until("That the other one knows it", lambda: _serves(two.far, made["secret"]))
    two.near.ok("DELETE", f"/tokens/{made['id']}")
    revoked_at, late_s = time.monotonic(), 0.0
    while (asked_at := time.monotonic()) < revoked_at + 20:
        if call_once(two.far, made["secret"])[0] == 401:
            break
        late_s = asked_at - revoked_at
    return late_s


def test_rules_and_sessions_hold_on_both(two: Two) -> None:
    two.far.login()
    rule = two.near.ok(
        "POST", "/access-rules", json={"cidr": "127.0.0.0/8", "action": "deny", "scope": "external"}
    )
    token = "pv_whatever"
    wait_until("The rule", lambda: two.far.infer("scale", token, **CALL).status_code == 403)
    two.near.ok("DELETE", f"/access-rules/{rule['id']}")
    wait_until("Its end", lambda: two.far.infer("scale", token, **CALL).status_code == 401)
    # A session of one is one of the other; ended here, it has ended there.
    two.near.forget_login()
    headers = {"X-Auth-Token": two.near.login()}
    assert two.far.client.get("/api/v1/internal/auth/me", headers=headers).status_code == 200
    two.near.ok("POST", "/auth/logout")
    two.near.forget_login()
    refused(two.far.client.get("/api/v1/internal/auth/me", headers=headers), 401, "unauthenticated")


@pytest.mark.parametrize("close", [False, True], ids=["silent", "refused"])
def test_one_that_is_cut_off_serves_on_refuses_changes_and_heals(two: Two, close: bool) -> None:
    made, kept = two.near.new_token(), two.near.token()
    wait_until("That both are known", lambda: _serves(two.far, made["secret"]) and _serves(two.far, kept))
    two.way.cut(close=close)
    try:
        two.near.ok("DELETE", f"/tokens/{made['id']}")
        refused(two.far.api("POST", "/tokens", json={"name": "x"}), 503, "unavailable", "database")
        refused(two.far.api("PUT", "/models/scale/deployment", json={"version": 1}), 503, "unavailable")
        for _ in range(20):
            assert _serves(two.far, kept), "what it knows it serves"
        assert _serves(two.far, made["secret"]), "what happens meanwhile it cannot know"
        assert two.far.client.get("/health/live").status_code == 200
    finally:
        two.way.heal()
        healed_at = time.monotonic()
    wait_until("The healing", lambda: call_once(two.far, made["secret"])[0] == 401)
    print(f"healed after {time.monotonic() - healed_at:.3f} s")
    wait_until("Changes", lambda: two.far.api("POST", "/tokens", json={"name": "x"}).status_code == 201)
    # And it is told at once again.
    more = two.far.new_token()
    wait_until("A new token", lambda: _serves(two.near, more["secret"]))
