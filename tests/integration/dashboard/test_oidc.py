"""Signing in by an OpenID provider, from the sign-in page and back, against a real one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.cli.serve import prepare
from app.main import create_app
from core.access.oidc.provider import Provider
from core.database.tables import AuditEntry, User
from core.oidc_settings import OidcSettings
from core.settings import Settings
from tests.integration.dashboard.conftest import Browser, House
from tests.openid_provider import CLIENT, SECRET, Claims, OpenIdProvider, SigningKey
from tests.servers import PASSWORD


@pytest.fixture(scope="module")
def _provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as provider:
        yield provider


@pytest.fixture
def provider(_provider: OpenIdProvider, request: pytest.FixtureRequest) -> OpenIdProvider:
    """The provider, honest, with a user of its own for each test."""
    name = f"u{zlib.crc32(request.node.name.encode())}"
    _provider.user = {"preferred_username": name, "groups": ["ml-ops", "cooking"]}
    _provider.alter, _provider.sign, _provider.keys = lambda claims: None, None, _provider.keys[:1]
    return _provider


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, _provider: OpenIdProvider) -> Iterator[House]:
    settings = Settings.model_validate(
        {
            "data_dir": Path(tmp_path_factory.mktemp("oidc")),
            "admin_password": PASSWORD,
            "access": {"login_rate": "10000/hour", "user_failure_rate": "3/hour"},
            "oidc": {
                "issuer": _provider.issuer,
                "client_id": CLIENT,
                "client_secret": SECRET,
                "label": "Acme <ID>",
                "roles": {"ml-ops": "operator", "bosses": "admin"},
            },
        }
    )
    asyncio.run(prepare(settings))
    with TestClient(create_app(settings), raise_server_exceptions=False) as portal:
        yield House(portal)


def begin(browser: Browser, path: str = "/login/oidc") -> str:
    answer = browser.get(path)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def come_back(browser: Browser, provider: OpenIdProvider, path: str = "/login/oidc") -> Any:
    return browser.get(provider.authorize(begin(browser, path)))


def refused(browser: Browser, answer: Any, status: int, words: str) -> None:
    assert answer.status_code == status
    assert words in answer.text
    assert browser.get("/dashboard/account").status_code == 401


def user_of(house: House, name: str) -> User | None:
    async def find() -> User | None:
        async with house.platform.database.session() as session:
            return await session.scalar(select(User).where(User.name == name))

    found: User | None = house.run(find)
    return found


def change(house: House, whom: Any, **values: Any) -> None:
    async def write() -> None:
        async with house.platform.database.transaction() as session:
            await session.execute(update(User).where(whom).values(**values))

    house.run(write)


def entries(house: House, subject: str) -> list[tuple[str, str]]:
    async def read() -> list[tuple[str, str]]:
        async with house.platform.database.session() as session:
            rows = await session.scalars(
                select(AuditEntry).where(AuditEntry.subject == subject).order_by(AuditEntry.id)
            )
            return [(row.action, str(row.detail)) for row in rows]

    found: list[tuple[str, str]] = house.run(read)
    return found


def with_settings(house: House, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    oidc = house.platform.access.oidc
    assert oidc is not None
    monkeypatch.setattr(oidc, "oidc", oidc.oidc.model_copy(update=changes))


def test_from_the_sign_in_page_to_the_page_asked_for_and_back_again(
    house: House, provider: OpenIdProvider
) -> None:
    browser, name = house.browser(), provider.user["preferred_username"]
    assert browser.get("/dashboard/account").status_code == 401
    assert "Sign in with Acme &lt;ID&gt;" in browser.page
    answer = come_back(browser, provider, "/login/oidc?next=/dashboard/account")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/account")
    assert browser.get("/dashboard/account").status_code == 200
    assert name in browser.page
    assert [action for action, _ in entries(house, name)] == ["user.create", "auth.login"]
    user = user_of(house, name)
    assert user is not None
    assert user.role == "operator"

    provider.user["groups"] = ["bosses", "ml-ops"]  # the next time as somebody else
    assert come_back(house.browser(), provider).status_code == 303
    assert user_of(house, name).role == "admin"  # type: ignore[union-attr]


def test_the_cookie_of_the_way_is_short_and_kept_from_scripts(house: House, provider: OpenIdProvider) -> None:
    browser = house.browser("https://testserver")
    answer = browser.get("/login/oidc")
    line = next(line for line in answer.headers.get_list("set-cookie") if "pulvinar_oidc" in line)
    for attribute in ("__Host-pulvinar_oidc=", "HttpOnly", "SameSite=lax", "Secure", "Max-Age=600", "Path=/"):
        assert attribute in line
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    assert asked["redirect_uri"] == ["https://testserver/login/oidc/callback"]
    assert asked["nonce"][0] not in line


def test_a_proxy_s_address_is_the_setting_s(
    house: House, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_settings(house, monkeypatch, public_url="https://models.example.com")
    answer = house.browser().get("/login/oidc")
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    assert asked["redirect_uri"] == ["https://models.example.com/login/oidc/callback"]
    assert "Secure" in answer.headers["set-cookie"]


def test_a_way_back_that_another_browser_began_is_refused(house: House, provider: OpenIdProvider) -> None:
    theirs, mine = house.browser(), house.browser()
    planted = provider.authorize(begin(theirs))
    refused(mine, mine.get(planted), 403, "was not begun in this browser")
    begin(mine)
    refused(mine, mine.get(planted), 403, "was not begun in this browser")


def test_a_way_back_works_once_and_not_after_ten_minutes(
    house: House, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = house.browser()
    back = provider.authorize(begin(browser))
    assert browser.get(back).status_code == 303
    assert "was not begun in this browser" in browser.get(back).text
    late = house.browser()
    back, now = provider.authorize(begin(late)), time.time()
    monkeypatch.setattr("app.dashboard.oidc.time", SimpleNamespace(time=lambda: now + 602))
    refused(late, late.get(back), 403, "more than ten minutes ago")


def test_a_cookie_that_was_made_up_is_refused(house: House, provider: OpenIdProvider) -> None:
    browser = house.browser()
    back = provider.authorize(begin(browser))
    kept = browser.client.cookies["pulvinar_oidc"]
    browser.client.cookies.clear()
    browser.client.cookies.set("pulvinar_oidc", "0" + kept[1:] if kept[0] != "0" else "1" + kept[1:])
    refused(browser, browser.get(back), 403, "was not begun in this browser")


def _set(name: str, value: Any) -> Any:
    def alter(claims: Claims) -> None:
        claims[name] = value

    return alter


def _long_ago(claims: Claims) -> None:
    claims |= {"iat": int(time.time()) - 1000, "exp": int(time.time()) - 100}


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (_set("nonce", "0" * 64), "belongs to another sign-in"),
        (lambda claims: claims.pop("nonce"), "belongs to another sign-in"),
        (_set("iss", "https://evil.example"), "is from another issuer"),
        (_set("aud", "another application"), "was made for another application"),
        (_set("aud", [CLIENT, "another application"]), "was made for another application"),
        (_set("azp", "another application"), "was made for another application"),
        (_long_ago, "has expired"),
        (lambda claims: claims.pop("exp"), "claims are wrong"),
        (_set("groups", ["cooking"]), "None of your groups has a role here"),
        (lambda claims: claims.pop("groups"), "None of your groups has a role here"),
        (lambda claims: claims.pop("preferred_username"), "did not say your user name"),
        (_set("preferred_username", "<script>"), "You cannot be added as a user"),
        (_set("preferred_username", "admin"), "Your name is that of a user here"),
    ],
)
def test_claims_that_are_not_right_open_nothing(
    house: House, provider: OpenIdProvider, alter: Any, words: str
) -> None:
    provider.alter = alter
    browser = house.browser()
    refused(browser, come_back(browser, provider), 403, words)
    assert user_of(house, provider.user["preferred_username"]) is None


def _unsigned(claims: Claims) -> str:
    return ".".join([_part({"alg": "none"}), _part(claims), ""])


def _part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _by_the_public_key(key: SigningKey) -> Any:
    def sign(claims: Claims) -> str:
        text = f"{_part({'alg': 'HS256', 'kid': key.kid})}.{_part(claims)}"
        return f"{text}.{_part(hmac.digest(key.public_pem.encode(), text.encode(), hashlib.sha256))}"

    return sign


@pytest.mark.parametrize("attack", ["none", "HS256", "another key", "unknown key", "ES256 for RS256", "no token"])
def test_signatures_that_are_not_the_provider_s_open_nothing(
    house: House, provider: OpenIdProvider, attack: str
) -> None:
    provider.sign, words = {
        "none": (_unsigned, "is not signed with RS256 or ES256"),
        "HS256": (_by_the_public_key(provider.keys[0]), "is not signed with RS256 or ES256"),
        "another key": (SigningKey("one").sign, "its signature or its claims are wrong"),
        "unknown key": (SigningKey("three").sign, "a key that it does not publish"),
        "ES256 for RS256": (SigningKey("one", "ES256").sign, "a key that it does not publish"),
        "no token": (lambda claims: "a.b", "is no signed token"),
    }[attack]
    browser = house.browser()
    refused(browser, come_back(browser, provider), 403, words)
    assert "auth.login_failed" in {action for action, _ in entries(house, "?")}


def test_a_new_key_is_fetched_once_and_may_be_of_the_other_kind(provider: OpenIdProvider) -> None:
    oidc = OidcSettings(
        issuer=provider.issuer, client_id=CLIENT, client_secret=SECRET, default_role="viewer", timeout_s=30
    )

    async def sign_in(asker: Provider) -> str:
        back = provider.authorize(await asker.address("http://h/cb", "s", "n", "v" * 43))
        code = parse_qs(urlsplit(back).query)["code"][0]
        return str((await asker.claims(code, "http://h/cb", "n", "v" * 43))["sub"])

    async def scenario() -> None:
        asker = Provider(oidc)
        assert await sign_in(asker) == await sign_in(asker)
        assert provider.fetches.count("/keys") == 1
        provider.keys = [SigningKey("two", "ES256"), *provider.keys]
        asker._known = asker._known and type(asker._known)(
            asker._known.document, asker._known.keys, asker._known.at - 31
        )
        await sign_in(asker)
        await sign_in(asker)
        assert provider.fetches.count("/keys") == 2

    provider.fetches.clear()
    try:
        asyncio.run(scenario())
    finally:
        provider.keys = provider.keys[-1:]


def test_a_disabled_user_stays_out_and_a_deaf_provider_is_told_in_words(
    house: House, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = provider.user["preferred_username"]
    assert come_back(house.browser(), provider).status_code == 303
    change(house, User.name == name, disabled=True)
    browser = house.browser()
    refused(browser, come_back(browser, provider), 403, "This user is disabled here")
    with socket.socket() as deaf:  # takes connections, and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        away = OidcSettings(
            issuer=f"http://127.0.0.1:{deaf.getsockname()[1]}",
            client_id=CLIENT,
            default_role="viewer",
            timeout_s=0.2,
        )
        monkeypatch.setattr(house.platform.access.oidc, "_provider", Provider(away))
        answer = browser.get("/login/oidc?next=/dashboard/account")
    refused(browser, answer, 503, "The sign-in provider does not answer now")
    assert browser.sign_in().status_code == 303  # the password still does


def test_users_made_here_are_bound_once_where_that_is_allowed(
    house: House, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.user["preferred_username"], provider.user["sub"] = "admin", "the-real-one"
    with_settings(house, monkeypatch, link_users=True)
    others = {name: value for name, value in provider.user.items() if name != "groups"}
    change(house, User.name != "admin", role="viewer")
    assert come_back(house.browser(), provider).status_code == 303
    assert user_of(house, "admin").role == "admin"  # type: ignore[union-attr]  # the last one, whatever the groups say
    provider.user = {**others, "groups": ["bosses"], "sub": "one-who-took-the-name"}
    browser = house.browser()
    refused(browser, come_back(browser, provider), 403, "Your name is that of a user here")
    change(house, User.name == "admin", oidc_subject=None)


@pytest.mark.parametrize(
    ("changes", "claims", "words"),
    [
        ({"create_users": False}, {}, "There is no user of your name here yet"),
        ({"allowed_groups": ["bosses"]}, {}, "in none of the groups that may sign in"),
        ({"allowed_domains": ["acme.example"]}, {}, "not verified, or not of a domain"),
        ({"allowed_domains": ["acme.example"]}, {"email": "a@acme.example"}, "not verified"),
        (
            {"allowed_domains": ["acme.example"]},
            {"email": "a@evil.example", "email_verified": True},
            "not of a domain",
        ),
        ({"allowed_domains": ["acme.example"]}, {"email": "a@ACME.example", "email_verified": True}, ""),
    ],
)
def test_whom_the_settings_let_in(
    house: House,
    provider: OpenIdProvider,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    claims: Claims,
    words: str,
) -> None:
    with_settings(house, monkeypatch, **changes)
    provider.user |= claims
    browser = house.browser()
    answer = come_back(browser, provider)
    if words:
        refused(browser, answer, 403, words)
    else:
        assert answer.status_code == 303


def test_refusals_lock_nobody_out_and_a_provider_s_no_is_told(house: House, provider: OpenIdProvider) -> None:
    browser = house.browser()
    provider.alter = _set("preferred_username", "admin")
    for _ in range(4):  # one more than wrong passwords are allowed
        assert come_back(browser, provider).status_code == 403
    assert house.browser().sign_in().status_code == 303
    asked = parse_qs(urlsplit(begin(browser)).query)
    answer = browser.get(f"/login/oidc/callback?error=access_denied&state={asked['state'][0]}")
    refused(browser, answer, 403, "The provider did not sign you in")
    begin(browser)
    answer = browser.get("/login/oidc/callback?code=x")
    refused(browser, answer, 403, "was not begun in this browser")


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": "http://id.example.com", "client_id": "x", "default_role": "viewer"},
        {"issuer": "https://id.example.com", "default_role": "viewer"},
        {"issuer": "https://id.example.com", "client_id": "x"},
        {"issuer": "https://id.example.com", "client_id": "x", "default_role": "viewer", "scopes": ["email"]},
        {"public_url": "https://models.example.com/below"},
        {"default_role": "admin"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        OidcSettings(**settings)
