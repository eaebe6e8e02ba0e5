"""Every page asks who is there, and every form is from one of our own pages."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.dashboard.dashboard import ROUTERS
from app.dashboard.guard import PageRoute
from tests.integration.dashboard.conftest import OURS, TOKEN, Browser, House

ROUTES = [
    (method, "/dashboard" + re.sub(r"\{[^}]+\}", "1" * 32, route.path))
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, PageRoute)
    for method in sorted(route.methods)
]
FORMS = [path for method, path in ROUTES if method == "POST"]
STREAM = "/dashboard/live"
PAGES = [path for method, path in ROUTES if method == "GET" and "1" * 32 not in path and path != STREAM]


def test_all_routes_are_guarded() -> None:
    assert all(isinstance(route, PageRoute) for router in ROUTERS for route in router.routes)
    assert len(FORMS) >= 4


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_sees_a_page_without_signing_in(visitor: Browser, method: str, path: str) -> None:
    answer = visitor.client.request(method, path, headers=OURS)
    assert answer.status_code == 401
    assert "Sign in" in answer.text or "hx-refresh" in answer.headers
    for headers in ({"X-Auth-Token": "x"}, {"Authorization": "Bearer x"}, {"X-Access-Token": "pv_x"}):
        assert visitor.client.request(method, path, headers={**OURS, **headers}).status_code == 401


@pytest.fixture(scope="module")
def signed_in(house: House) -> Browser:
    """For tests that leave the session as it is."""
    browser = house.browser()
    browser.sign_in()
    return browser


def refused(browser: Browser, path: str, headers: dict[str, str], token: str | None = None) -> None:
    found = TOKEN.search(browser.page)
    assert found is not None
    answer = browser.client.post(path, data={"csrf": found[1] if token is None else token}, headers=headers)
    assert answer.status_code == 403
    assert "nothing was done" in answer.text


@pytest.mark.parametrize("path", FORMS)
def test_a_form_of_another_page_does_nothing(signed_in: Browser, path: str) -> None:
    refused(signed_in, path, OURS, token="")
    refused(signed_in, path, {"Sec-Fetch-Site": "cross-site"})


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        (OURS, "0" * 64),
        ({**OURS, "X-CSRF-Token": "x"}, None),
        ({"Sec-Fetch-Site": "same-site"}, None),
        ({"Origin": "https://evil.example"}, None),
        ({"Origin": "null"}, None),
    ],
)
def test_a_form_needs_its_origin_and_its_token(
    signed_in: Browser, headers: dict[str, str], token: str | None
) -> None:
    refused(signed_in, "/dashboard/theme", headers, token)


def test_a_token_of_another_session_is_no_token(house: House, admin: Browser) -> None:
    other = house.browser()
    other.sign_in()
    other.client.cookies = admin.client.cookies
    assert other.post("/dashboard/theme", {"theme": "dark"}).status_code == 403


def test_a_script_sends_the_token_in_a_header(admin: Browser) -> None:
    found = TOKEN.search(admin.page)
    assert found is not None
    headers = {**OURS, "X-CSRF-Token": found[1]}
    assert admin.client.post("/dashboard/theme", data={"theme": "dark"}, headers=headers).status_code == 303


@pytest.mark.parametrize("path", ["/login", *PAGES, "/dashboard/nothing/here"])
def test_a_page_runs_nothing_inline_and_loads_nothing_from_elsewhere(signed_in: Browser, path: str) -> None:
    answer = signed_in.client.get(path)
    if "text/html" not in answer.headers.get("content-type", ""):
        return
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|javascript:", answer.text)
    for link in re.findall(r'(?:src|href|action)="([^"]+)"', answer.text):
        assert re.match(r"/(?!/)|#", link), link
        if link.startswith("/static/"):
            assert signed_in.client.head(link).status_code == 200, link


def test_an_unknown_page_says_so(admin: Browser) -> None:
    answer = admin.get("/dashboard/nothing")
    assert answer.status_code == 404
    assert "There is no page at this address." in answer.text


def test_a_body_that_is_too_large_is_refused(admin: Browser) -> None:
    answer = admin.post("/dashboard/theme", {"theme": "x" * (2 << 20)})
    assert answer.status_code == 413


def test_the_first_address_leads_to_the_dashboard(visitor: Browser) -> None:
    answer: Any = visitor.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/")
    assert visitor.get("/dashboard").headers["location"] == "/dashboard/"


def test_a_theme_is_kept_by_the_browser(admin: Browser) -> None:
    answer = admin.post("/dashboard/theme", {"theme": "dark", "back": "/dashboard/account"})
    assert answer.headers["location"] == "/dashboard/account"
    assert 'data-bs-theme="dark"' in admin.get("/dashboard/account").text
    assert 'data-bs-theme="dark"' in admin.get("/login").text
    admin.get("/dashboard/account")
    answer = admin.post("/dashboard/theme", {"theme": "pink", "back": "//evil.example"})
    assert answer.headers["location"] == "/dashboard/"


def test_search_finds_pages_and_says_when_there_is_nothing(admin: Browser) -> None:
    assert 'href="/dashboard/"' in admin.get("/dashboard/search?q=over").text
    assert "Nothing is called <q>&lt;script&gt;</q>" in admin.get("/dashboard/search?q=<script>").text
    part = admin.get("/dashboard/search?q=over", headers={"HX-Request": "true"})
    assert "<html" not in part.text
