"""Every route asks for credentials or stands on the public list; errors are always in the house's own words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from app.main import create_app, external_api, internal_api
from core.settings import Settings
from tests.acceptance.answers import refused
from tests.conftest import Demo, StartServer
from tests.servers import INTERNAL, ROOT, RunningServer

PUBLIC = re.compile(r"/health(/live|/ready)?|/v2/health/.*|/docs(/.*)?|/login|/static(/.*)?|/|/dashboard")
# `/metrics` has its own rule, the address; signing in is how credentials are got.
OPEN = {
    ("POST", f"{INTERNAL}/auth/login"),
    ("POST", f"{INTERNAL}/auth/refresh"),
    ("GET", "/metrics"),
    ("HEAD", "/metrics"),
}


def _routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            yield method.upper(), path


def _all_routes() -> list[tuple[str, str]]:
    settings = Settings()
    found = [(method, INTERNAL + path) for method, path in _routes(internal_api(settings))]
    found += list(_routes(external_api()))
    for route in create_app(settings)._app.routes:
        found += [(method, route.path) for method in getattr(route, "methods", None) or ()]
    return sorted(set(found))


def _hidden(app: FastAPI) -> list[str]:
    """Routes that the OpenAPI document does not tell of."""
    told = set(app.openapi()["paths"])
    found = []
    for entry in app.routes:
        routes = entry.original_router.routes if hasattr(entry, "original_router") else [entry]
        found += [route.path for route in routes]
    return [path for path in found if not any(one == path or one.endswith(path) for one in told)]


ROUTES = _all_routes()


def test_all_routes_are_known() -> None:
    assert len(ROUTES) > 40
    assert not _hidden(internal_api(Settings()))
    assert not _hidden(external_api())
    mounts = [route.path for route in create_app(Settings())._app.routes if not getattr(route, "methods", None)]
    oip = ["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"]
    assert sorted(mounts) == [
        "",
        "/api/v1/inference",
        "/api/v1/internal",
        "/api/v1/stream",
        "/dashboard",
        "/login",
        "/login/code",
        "/login/oidc",
        "/login/oidc/callback",
        "/predict",
        "/static",
        *oip,
    ]


def _filled(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "1", path)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_asks_for_credentials_or_is_public(demo: Demo, method: str, path: str) -> None:
    answer = demo.server.client.request(method, _filled(path))
    if PUBLIC.fullmatch(path) or (method, path) in OPEN:
        assert answer.status_code not in (401, 403, 404, 405), answer.text
        return
    refused(answer, 401, "unauthenticated")
    for headers in ({"X-Auth-Token": "x.y.z"}, {"X-Access-Token": "pv_" + "A" * 43}, {"Cookie": "session=1"}):
        refused(demo.server.client.request(method, _filled(path), headers=headers), 401, "unauthenticated")


# What each role may call: the first role of which a route wants no more.
LEAST = {
    "GET /users": "admin",
    "POST /users": "admin",
    "PATCH /users/{user_id}": "admin",
    "DELETE /users/{user_id}": "admin",
    "GET /tokens": "admin",
    "POST /tokens": "admin",
    "GET /tokens/expiring": "admin",
    "GET /tokens/{token_id}": "admin",
    "PATCH /tokens/{token_id}": "admin",
    "DELETE /tokens/{token_id}": "admin",
    "POST /tokens/{token_id}/rotate": "admin",
    "GET /tenants": "admin",
    "POST /tenants": "admin",
    "GET /tenants/{tenant_id}": "admin",
    "PATCH /tenants/{tenant_id}": "admin",
    "DELETE /tenants/{tenant_id}": "admin",
    "GET /usage": "viewer",
    "GET /usage/export": "admin",
    "GET /sharing/{name}": "viewer",
    "PUT /sharing/{name}": "admin",
    "GET /audit": "admin",
    "GET /audit/export": "admin",
    "GET /audit/verify": "admin",
    "GET /access-rules": "admin",
    "GET /access-rules/check": "admin",
    "POST /access-rules": "admin",
    "DELETE /access-rules/{rule_id}": "admin",
    "GET /users/{user_id}/sessions": "admin",
    "DELETE /users/{user_id}/sessions": "admin",
    "DELETE /users/{user_id}/totp": "admin",
    "GET /keys": "admin",
    "POST /keys/rotate": "admin",
    "DELETE /keys/{kid}": "admin",
    "GET /auth/totp": "viewer",
    "POST /auth/totp": "viewer",
    "POST /auth/totp/confirm": "viewer",
    "POST /auth/totp/recovery-codes": "viewer",
    "POST /auth/totp/disable": "viewer",
    "GET /auth/sessions": "viewer",
    "DELETE /auth/sessions/{session_id}": "viewer",
    "POST /models": "operator",
    "POST /models/activate": "operator",
    "PATCH /models/{name}": "operator",
    "DELETE /models/{name}": "operator",
    "POST /models/{name}/versions": "operator",
    "DELETE /models/{name}/versions/{number}": "operator",
    "POST /models/{name}/versions/{number}/archive": "operator",
    "POST /models/{name}/versions/{number}/restore": "operator",
    "POST /models/{name}/versions/{number}/validate": "operator",
    "POST /models/{name}/versions/{number}/optimise": "operator",
    "DELETE /models/{name}/versions/{number}/optimise": "operator",
    "PUT /models/{name}/versions/{number}/recommendation": "operator",
    "DELETE /models/{name}/versions/{number}/recommendation": "operator",
    "POST /models/{name}/versions/{number}/derived/{artifact_id}/rebuild": "operator",
    "DELETE /models/{name}/versions/{number}/derived/{artifact_id}": "operator",
    "GET /models/{name}/logs": "operator",
    "POST /models/{name}/samples": "operator",
    "DELETE /models/{name}/samples": "operator",
    "DELETE /models/{name}/samples/{sample_id}": "operator",
    "POST /imports": "operator",
    "POST /pipelines": "operator",
    "POST /pipelines/{name}/versions": "operator",
    "DELETE /pipelines/{name}": "operator",
    "PUT /pipelines/{name}/deployment": "operator",
    "DELETE /pipelines/{name}/deployment": "operator",
    "GET /pipelines": "viewer",
    "POST /pipelines/validate": "viewer",
    "GET /pipelines/{name}": "viewer",
    "GET /pipelines/{name}/versions/{number}": "viewer",
    "GET /pipelines/{name}/graph": "viewer",
    "GET /pipelines/{name}/deployment": "viewer",
    "DELETE /imports/{import_id}": "operator",
    "PUT /models/{name}/deployment": "operator",
    "DELETE /models/{name}/deployment": "operator",
    "POST /models/{name}/deployment/rollback": "operator",
    "GET /models": "viewer",
    "GET /imports": "viewer",
    "GET /imports/{import_id}": "viewer",
    "GET /models/{name}": "viewer",
    "GET /models/{name}/versions/{number}": "viewer",
    "GET /models/{name}/versions/{number}/trials": "viewer",
    "GET /models/{name}/versions/{number}/derived": "viewer",
    "GET /models/{name}/versions/{number}/derived/{artifact_id}": "viewer",
    "GET /models/{name}/versions/{number}/trials/events": "viewer",
    "GET /models/{name}/samples": "viewer",
    "GET /models/{name}/deployment": "viewer",
    "GET /system/stats": "viewer",
    "GET /system/engines": "viewer",
    "GET /system/nodes": "viewer",
    "GET /auth/me": "viewer",
    "POST /auth/password": "viewer",
}
RANK = ("viewer", "operator", "admin")


@pytest.fixture(scope="module")
def roles(demo: Demo) -> RunningServer:
    for role in RANK:
        demo.server.user(role + "1", role)
    return demo.server


def test_the_table_of_roles_knows_every_route() -> None:
    internal = {f"{method} {path}" for method, path in _routes(internal_api(Settings()))}
    assert internal - set(LEAST) == {
        "POST /auth/login",
        "POST /auth/second-factor",
        "POST /auth/refresh",
        "POST /auth/logout",
    }
    assert set(LEAST) <= internal


@pytest.mark.parametrize("route", LEAST)
def test_a_role_is_enough_or_it_is_not(roles: RunningServer, route: str) -> None:
    method, path = route.split(" ")
    path = path.replace("{name}", "nobody").replace("{number}", "1")
    path = re.sub(r"\{\w+_id\}", "999999", path).replace("{kid}", "f" * 16)
    for role in RANK:
        answer = roles.api(method, path, user=role + "1", json={} if method in ("POST", "PUT", "PATCH") else None)
        if RANK.index(role) < RANK.index(LEAST[route]):
            refused(answer, 403, "forbidden", LEAST[route], role)
        else:
            assert answer.status_code in (200, 201, 400, 404, 422), answer.text


MALFORMED = [
    ("POST", f"{INTERNAL}/auth/login", {"content": b"{"}, 400),
    ("POST", f"{INTERNAL}/auth/login", {"content": b'"\xff"'}, 400),
    ("POST", f"{INTERNAL}/auth/login", {"content": b"[" * 50_000}, 400),
    ("POST", f"{INTERNAL}/auth/login", {"json": []}, 422),
    ("POST", f"{INTERNAL}/auth/login", {"json": {}}, 422),
    ("POST", f"{INTERNAL}/auth/login", {"json": {"username": 1, "password": None}}, 422),
    ("POST", f"{INTERNAL}/auth/login", {"json": {"username": "a", "password": "b", "otp": "c"}}, 422),
    ("POST", f"{INTERNAL}/auth/login", {"content": b'{"username": "\\ud800", "password": "x"}'}, 422),
    ("POST", f"{INTERNAL}/auth/login", {"data": {"username": "a", "password": "b"}}, 422),
    ("POST", f"{INTERNAL}/users", {"json": {"name": "a b", "password": "long enough"}}, 422),
    ("POST", f"{INTERNAL}/users", {"json": {"name": "ab", "password": "short"}}, 422),
    ("POST", f"{INTERNAL}/users", {"json": {"name": "ab", "password": "long enough", "role": "king"}}, 422),
    ("PATCH", f"{INTERNAL}/users/one", {"json": {}}, 400),
    ("PATCH", f"{INTERNAL}/users/999999999999999999999", {"json": {}}, 400),
    ("PATCH", f"{INTERNAL}/users/999999", {"json": {}}, 404),
    ("GET", f"{INTERNAL}/tokens/1.5", {}, 400),
    ("GET", f"{INTERNAL}/models?limit=0", {}, 422),
    ("GET", f"{INTERNAL}/models?limit=many", {}, 422),
    ("GET", f"{INTERNAL}/models?cursor=nonsense", {}, 400),
    ("GET", f"{INTERNAL}/audit?since=yesterday", {}, 422),
    ("GET", f"{INTERNAL}/models/classifier/versions/0", {}, 400),
    ("GET", f"{INTERNAL}/models/classifier/versions/99999999999999", {}, 400),
    ("PUT", f"{INTERNAL}/models/classifier/deployment", {"json": {}}, 422),
    ("PUT", f"{INTERNAL}/models/classifier/deployment", {"json": {"version": 1, "engine": "magic"}}, 422),
    ("PUT", f"{INTERNAL}/models/classifier/deployment", {"json": {"version": 1, "max_delay_ms": -1}}, 422),
    ("PUT", f"{INTERNAL}/models/classifier/deployment", {"content": b'{"version": NaN}'}, 422),
    ("POST", f"{INTERNAL}/imports", {"json": {"name": "a", "source": "/etc/passwd"}}, 400),
    ("POST", f"{INTERNAL}/imports", {"json": {"name": "a", "source": "https://example.com/model.onnx"}}, 400),
    ("POST", f"{INTERNAL}/imports", {"json": {"name": "../a", "source": "hf:acme/cats"}}, 400),
    ("GET", f"{INTERNAL}/imports/0", {}, 400),
    ("GET", f"{INTERNAL}/imports/99999999999", {}, 400),
    ("GET", f"{INTERNAL}/nothing", {}, 404),
    ("GET", f"{INTERNAL}/models/classifier/nothing", {}, 404),
    ("DELETE", f"{INTERNAL}/auth/login", {}, 405),
    ("PUT", f"{INTERNAL}/models", {}, 405),
    ("POST", "/api/v1/models", {}, 405),
    ("GET", "/api/v1/nothing", {}, 404),
    ("GET", "/api/v1/inference", {}, 404),
    ("POST", "/api/v1/inference/", {"content": b"x"}, 404),
    ("POST", "/health", {}, 405),
    ("GET", "/nothing", {}, 404),
    ("GET", "/static/nothing.js", {}, 404),
    ("GET", "/static/../run.py", {}, 404),
    ("GET", "/static/%2e%2e/run.py", {}, 404),
    ("GET", "/static/..%2f..%2fetc/passwd", {}, 404),
    ("POST", "/static/docs.js", {}, 405),
    ("POST", "/docs", {}, 404),
]


@pytest.mark.parametrize(("method", "path", "options", "status"), MALFORMED)
def test_errors_are_in_the_house_s_words(
    demo: Demo, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    headers = {"X-Auth-Token": demo.server.login(), "X-Access-Token": demo.token}
    if "content" in options:
        headers["Content-Type"] = "application/json"
    answer = demo.server.client.request(method, path, headers=headers, **options)
    refused(answer, status)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("path", ["/v2/nothing", "/v2/models/classifier/nothing"])
def test_open_inference_errors(demo: Demo, method: str, path: str) -> None:
    answer = demo.server.client.request(method, path)
    assert answer.status_code in (401, 404, 405)
    assert set(answer.json()) == {"error"}
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/chat/nothing"])
def test_openai_errors(demo: Demo, path: str) -> None:
    answer = demo.server.client.post(path, json={})
    assert answer.status_code in (401, 404)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_over_the_cap_of_the_internal_api(demo: Demo) -> None:
    login = f"{INTERNAL}/auth/login"
    headers = {"Content-Type": "application/json"}
    refused(demo.server.client.post(login, content=bytes(2 << 20), headers=headers), 413, "too_large")
    chunks = (bytes(1 << 18) for _ in range(8))
    refused(demo.server.client.post(login, content=chunks, headers=headers), 413, "too_large")


@pytest.mark.parametrize("name", ["internal", "external"])
def test_an_openapi_document_holds_together(demo: Demo, name: str) -> None:
    document = demo.server.client.get(f"/docs/{name}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"]
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        place: Any = document
        for key in reference.split("/"):
            place = place[key]
        assert place
    schemes = document["components"]["securitySchemes"]
    ids = []
    for path, operations in document["paths"].items():
        wanted = set(re.findall(r"\{(\w+)\}", path))
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["responses"], (method, path)
            given = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert given == wanted, (method, path)
            for requirement in operation.get("security", []):
                assert set(requirement) <= set(schemes)
            ids.append(operation["operationId"])
    assert len(ids) == len(set(ids))


def test_the_pages_load_nothing_from_outside(demo: Demo) -> None:
    for page in ("/docs", "/docs/internal", "/docs/external"):
        answer = demo.server.client.get(page)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        links = re.findall(r'(?:src|href|data-url)="([^"]+)"', answer.text)
        assert links
        for link in links:
            assert link.startswith("/"), link
            assert not link.startswith("//"), link
            assert demo.server.client.get(link).status_code == 200, link
    scripts = (ROOT / "static/docs.js").read_text()
    assert "http://" not in scripts
    assert "https://" not in scripts


def test_the_pages_can_be_closed(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_SERVER__DOCS": "false"})
    for page in ("/docs", "/docs/internal", "/docs/external", "/docs/internal/openapi.json"):
        refused(server.client.get(page), 404, "not_found")


def test_metrics_answer_configured_addresses_only(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_SERVER__METRICS_ALLOW": '["10.0.0.0/8"]'})
    refused(server.client.get("/metrics", headers={"X-Forwarded-For": "10.0.0.1"}), 403, "forbidden")
