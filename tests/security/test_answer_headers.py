"""Every answer of every route has the headers that keep a browser from being fooled with it."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.acceptance.test_routes import INTERNAL, ROUTES
from tests.conftest import Demo

OTHERS = [
    ("POST", "/api/v1/inference/classifier"),
    ("GET", "/api/v1/inference/classifier"),
    ("POST", "/predict"),
    ("GET", "/api/v1/stream/classifier"),
    ("POST", "/v2/models/classifier/infer"),
    ("GET", "/static/docs.js"),
    ("GET", "/nothing"),
    ("OPTIONS", "/api/v1/inference/classifier"),
    ("TRACE", f"{INTERNAL}/models"),
]


def held_safe(answer: httpx.Response) -> None:
    """Each of them once, and none that opens what the others close."""
    headers = answer.headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers.get_list("x-frame-options") == ["DENY"]
    assert headers.get_list("referrer-policy") == ["no-referrer"]
    assert headers.get_list("cross-origin-resource-policy") == ["same-origin"]
    (policy,) = headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy or "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    if not answer.request.url.path.startswith("/static/"):
        (cached,) = headers.get_list("cache-control")
        assert "no-store" in cached or "no-cache" in cached
    assert len(headers.get_list("x-request-id")) == 1
    assert "strict-transport-security" not in headers  # without TLS it would be ignored, and wrong
    assert not [name for name in headers if name.startswith("access-control-")]
    assert "server" not in headers
    for cookie in headers.get_list("set-cookie"):
        assert "HttpOnly" in cookie
        assert "SameSite" in cookie


@pytest.mark.parametrize(("method", "path"), [*ROUTES, *OTHERS])
def test_every_answer_has_them_whoever_asks(demo: Demo, method: str, path: str) -> None:
    path = re.sub(r"\{[^}]+\}", "1", path)
    headers = {"Origin": "https://evil.example.com", "Access-Control-Request-Method": method}
    held_safe(demo.server.client.request(method, path, headers=headers))
    if method in ("GET", "HEAD"):
        with_token = {"X-Auth-Token": demo.server.login(), "X-Access-Token": demo.token}
        with demo.server.client.stream(method, path, headers=with_token) as answer:
            held_safe(answer)


def test_an_answer_of_a_model_has_them(demo: Demo) -> None:
    held_safe(demo.server.infer("classifier", demo.token, content=b"no picture"))
    held_safe(demo.server.infer("classifier", demo.token, json={"inputs": {}}))
