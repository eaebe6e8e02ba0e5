"""Tenants at the door, over every API that shows or calls models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.answers import refused
from tests.conftest import Demo

CALL: dict[str, Any] = {"json": {"inputs": {"x": [[1, 2, 3, 4]]}}}


@pytest.fixture(scope="module")
def red(tensors: Demo) -> Iterator[Demo]:
    """A tenant `red` with a token, with whom `scale` is not shared."""
    server = tensors.server
    made = server.ok("POST", "/tenants", json={"name": "red", "note": "the red team"})
    token = server.new_token(tenant="red")
    server.ok("PUT", "/sharing/scale", json={"tenants": ["default"]})
    yield Demo(server, token["secret"])
    server.ok("PUT", "/sharing/scale", json={"tenants": None})
    refused(server.api("DELETE", f"/tenants/{made['id']}"), 409, "conflict", "owns tokens")
    server.ok("DELETE", f"/tokens/{token['id']}")
    server.ok("DELETE", f"/tenants/{made['id']}")
    assert "red" not in {one["name"] for one in server.ok("GET", "/tenants")["items"]}


def test_what_is_not_shared_is_nowhere(tensors: Demo, red: Demo) -> None:
    client, headers = red.server.client, {"X-Access-Token": red.token}
    error = refused(red.server.infer("scale", red.token, **CALL), 404, "model_not_found")
    unknown = refused(red.server.infer("unknown", red.token, **CALL), 404, "model_not_found")
    assert error["message"].replace("scale", "unknown") == unknown["message"]
    for method, path in (
        ("GET", "/v2/models/scale"),
        ("GET", "/v2/models/scale/ready"),
        ("GET", "/v2/models/scale/config"),
        ("GET", "/v2/models/scale/stats"),
        ("POST", "/v2/models/scale/infer"),
    ):
        assert client.request(method, path, headers=headers).status_code == 404, path
    listed = client.get("/api/v1/models", headers=headers).json()["models"]
    indexed = client.post("/v2/repository/index", headers=headers).json()
    counted = client.get("/v2/models/stats", headers=headers).json()["model_stats"]
    for names in ([one["name"] for one in some] for some in (listed, indexed, counted)):
        assert "scale" not in names
        assert "classifier" in names
    assert tensors.server.infer("scale", tensors.token, **CALL).status_code == 200
    assert red.server.ok("GET", "/sharing/scale") == {"name": "scale", "tenants": ["default"]}


def test_a_disabled_tenant_is_refused_at_once(tensors: Demo, red: Demo) -> None:
    (tenant,) = [one for one in red.server.ok("GET", "/tenants")["items"] if one["name"] == "red"]
    headers = {"X-Access-Token": red.token}
    assert red.server.client.get("/api/v1/models", headers=headers).status_code == 200
    assert red.server.ok("PATCH", f"/tenants/{tenant['id']}", json={"disabled": True})["disabled"] is True
    refused(red.server.client.get("/api/v1/models", headers=headers), 403, "forbidden", "tenant")
    refused(red.server.infer("classifier", red.token, content=b"x"), 403, "forbidden", "tenant")
    assert tensors.server.infer("scale", tensors.token, **CALL).status_code == 200
    red.server.ok("PATCH", f"/tenants/{tenant['id']}", json={"disabled": False})
    assert red.server.client.get("/api/v1/models", headers=headers).status_code == 200


def test_what_a_tenant_cannot_be(red: Demo) -> None:
    server = red.server
    refused(server.api("POST", "/tenants", json={"name": "red"}), 409, "conflict")
    refused(server.api("POST", "/tenants", json={"name": "No Name"}), 422, "unprocessable")
    refused(server.api("POST", "/tokens", json={"name": "x", "tenant": "blue"}), 422, "unprocessable", "blue")
    refused(server.api("PUT", "/sharing/scale", json={"tenants": ["blue"]}), 422, "unprocessable", "blue")
    refused(server.api("PUT", "/sharing/nothing", json={"tenants": None}), 404, "model_not_found")
    refused(server.api("GET", "/tenants/999999"), 404, "not_found")
    server.user("olga-of-tenants", "operator")
    refused(server.api("GET", "/tenants", user="olga-of-tenants"), 403, "forbidden")


def test_a_rotated_secret_goes_on_for_its_grace(tensors: Demo) -> None:
    made = tensors.server.new_token()
    fresh = tensors.server.ok("POST", f"/tokens/{made['id']}/rotate", json={"grace_s": 600})
    assert fresh["previous_until"]
    for secret in (made["secret"], fresh["secret"]):
        assert tensors.server.infer("scale", secret, **CALL).status_code == 200
    tensors.server.ok("DELETE", f"/tokens/{made['id']}")
    for secret in (made["secret"], fresh["secret"]):
        refused(tensors.server.infer("scale", secret, **CALL), 401, "unauthenticated", "revoked")


def test_a_burst_is_let_in_at_once(tensors: Demo) -> None:
    token = tensors.server.token(rate="1/day", burst=3)
    statuses = [tensors.server.infer("scale", token, **CALL).status_code for _ in range(5)]
    assert statuses == [200] * 3 + [429] * 2
