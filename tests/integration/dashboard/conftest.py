"""The dashboard in this process: the whole app on a database of its own, without a socket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.cli.serve import prepare
from app.main import create_app
from app.state import Platform
from core.settings import Settings
from tests.servers import PASSWORD

TOKEN = re.compile(r'name="csrf" value="([0-9a-f]{64})"')
OURS = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class Browser:
    """A browser without scripts: keeps cookies, follows no redirect by itself, sends forms as pages have them."""

    client: TestClient
    page: str = field(default="")

    def get(self, path: str, **options: Any) -> Any:
        answer = self.client.get(path, **options)
        self.page = answer.text
        return answer

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> Any:
        """Send a form with the token of the page that was seen last."""
        found = TOKEN.search(self.page)
        body = {"csrf": found[1] if found else "", **(data or {})}
        answer = self.client.post(path, data=body, headers={**OURS, **options.pop("headers", {})}, **options)
        self.page = answer.text
        return answer

    def sign_in(self, name: str = "admin", password: str = PASSWORD) -> Any:
        self.get("/login")
        answer = self.post("/login", {"name": name, "password": password, "next": "/dashboard/"})
        self.get("/dashboard/account")
        return answer


@dataclass(frozen=True)
class House:
    """The app in this process."""

    portal: TestClient

    @property
    def platform(self) -> Platform:
        return self.portal.app_state["platform"]  # type: ignore[attr-defined, no-any-return]

    def browser(self, base_url: str = "http://testserver") -> Browser:
        """Another browser: its cookies are its own, the app is the same."""
        client = TestClient(self.portal.app, base_url=base_url, follow_redirects=False)
        client._transport = self.portal._transport
        return Browser(client)

    def run(self, call: Any, *args: Any) -> Any:
        """Run a coroutine function where the app runs."""
        assert self.portal.portal is not None
        return self.portal.portal.call(call, *args)


@contextmanager
def open_house(folder: Path) -> Iterator[House]:
    """The app on a new database in `folder`."""
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "admin_password": PASSWORD,
            "access": {"login_rate": "10000/hour", "user_failure_rate": "10000/hour"},
        }
    )
    asyncio.run(prepare(settings))
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as portal:
        yield House(portal)


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The one that all tests here share."""
    with open_house(tmp_path_factory.mktemp("dashboard")) as opened:
        yield opened


@pytest.fixture
def visitor(house: House) -> Browser:
    """Nobody is signed in."""
    return house.browser()


@pytest.fixture
def admin(house: House) -> Browser:
    """The administrator, signed in; the page seen last is the account."""
    browser = house.browser()
    assert browser.sign_in().status_code == 303
    return browser
