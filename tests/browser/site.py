"""A dashboard with something in it, and Chromium to look at it with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.served_pages import MODEL
from tests.servers import DEMO_IMAGES, PASSWORD, RunningServer, demo_package

HOSTILE: Final = ("<script>window.harmed = 1</script>", '"><img src=x onerror="window.harmed = 1">')
OWN_PASSWORD: Final = "a few words in a row"
PHONE: Final = {"width": 360, "height": 740}
DESK: Final = {"width": 1280, "height": 800}
# Other violations are errors of the console by themselves; this names those of styles and connections too.
_TELLS_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));"""


def chromium() -> str | None:
    """Where Chromium is, if it is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window. An event loop runs in this thread as long as it is open."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--disable-gpu"])
        yield opened
        opened.close()


@dataclass
class Visit:
    """A browser of its own: cookies, theme, tabs; and what it complained of."""

    context: BrowserContext
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Words of complaints that belong to the test, as the 401 of a page that asks for a sign-in."""

    def __post_init__(self) -> None:
        self.context.add_init_script(_TELLS_VIOLATIONS)
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self.complaints.append(f"{error.page.url}: {error.error}"))

    def open(self, path: str) -> Page:
        """A new tab."""
        page = self.context.new_page()
        page.goto(path)
        return page

    def unexpected(self) -> list[str]:
        """Complaints that no test expects."""
        return [line for line in self.complaints if not any(words in line for words in self.expected)]

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.location.get('url')}: {message.text}")


@dataclass(frozen=True)
class Site:
    """A server, a browser, and the session of its administrator."""

    server: RunningServer
    browser: Browser
    session: Any

    @property
    def address(self) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self.server.port}"

    def visit(self, *, signed_in: bool = True, **options: Any) -> Visit:
        """A browser with cookies of its own; `options` as of Browser.new_context."""
        state = self.session if signed_in else None
        options = {"viewport": DESK, "reduced_motion": "reduce", **options}
        context = self.browser.new_context(base_url=self.address, storage_state=state, **options)
        context.set_default_timeout(30_000)
        return Visit(context)

    def client(self) -> httpx.Client:
        """A client without scripts, signed in as the administrator."""
        cookies = {cookie["name"]: cookie["value"] for cookie in self.session["cookies"]}
        return httpx.Client(base_url=self.address, cookies=cookies, trust_env=False)


def sign_in(page: Page, name: str = "admin", password: str = PASSWORD) -> None:
    """Fill in the sign-in page that is open, and send it."""
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


def add_user(page: Page, name: str, role: str = "viewer") -> str:
    """Add a user by the page that is open; answers the password that is shown once."""
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Role").select_option(role)
    page.get_by_role("button", name="Add", exact=True).click()
    return page.locator("#secret").inner_text()


def change_password(page: Page, password: str) -> None:
    """Choose an own one, by the page that is open."""
    page.get_by_label("Present password").fill(password)
    page.get_by_label("New password").fill(OWN_PASSWORD)
    page.get_by_label("The new one again").fill(OWN_PASSWORD)
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()


def finish_motion(page: Page) -> None:
    """End what is moving or fading."""
    page.evaluate("document.getAnimations().forEach((one) => { try { one.finish(); } catch {} })")


@contextmanager
def site(folder: Path, opened: Browser, names: Sequence[str] = HOSTILE) -> Iterator[Site]:
    """A server with a model in service, tokens of these names, and an administrator who is signed in."""
    with RunningServer(folder) as server:
        server.upload(MODEL, demo_package())
        server.deploy(MODEL)
        for name in names:
            server.new_token(name=name)
        image = (DEMO_IMAGES / "coffee.jpg").read_bytes()
        assert server.infer(MODEL, server.token(name="mobile app"), content=image).status_code == 200
        with opened.new_context(base_url=f"http://127.0.0.1:{server.port}") as context:
            page = context.new_page()
            page.goto("/login")
            sign_in(page)
            page.wait_for_url("**/dashboard/")
            session = context.storage_state()
        yield Site(server, opened, session)


def must_be_here() -> bool:
    """Whether a missing browser is a failure: where tests run for everybody."""
    return os.environ.get("CI") == "true"
