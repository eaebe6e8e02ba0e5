"""Every page that the routers have: for eyes, keyboards, screen readers, phones and browsers without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.screenshots import MOST_BYTES, docs_picture, whole_pages
from tests.browser.served_pages import PAGES, PAGES_OF_ONE, is_whole_page
from tests.browser.site import DESK, HOSTILE, PHONE, Site, Visit, finish_motion
from tests.servers import ROOT

AXE = Path(__file__).with_name("vendor") / "axe.min.js"
_CHECK = """async (only) => {
  const options = { resultTypes: ["violations"], ...(only && { runOnly: only }) };
  const found = await axe.run(document, options);
  return found.violations.map((one) => [one.impact, one.id, one.nodes.map((node) => node.html)]);
}"""


@cache
def _axe() -> str:
    return AXE.read_text(encoding="utf-8")


def serious(page: Page, only: list[str] | None = None) -> list[Any]:
    """What axe-core finds that keeps somebody from using the page."""
    finish_motion(page)
    return [found for found in page.evaluate(_CHECK, only) if found[0] in ("serious", "critical")]


@pytest.fixture(scope="package")
def readers(dashboard: Site) -> Iterator[dict[bool, Visit]]:
    """The administrator with scripts and without, for tests that only read."""
    visits = {scripts: dashboard.visit(java_script_enabled=scripts) for scripts in (True, False)}
    for visit in visits.values():
        visit.context.new_page()
    yield visits
    for visit in visits.values():
        visit.context.close()


def reading(readers: dict[bool, Visit], dashboard: Site, path: str, *, scripts: bool) -> Visit:
    with dashboard.client() as client:
        if not is_whole_page(client, path):
            pytest.skip("a part of a page, or no page at all")
    visit = readers[scripts]
    visit.complaints.clear()
    visit.context.pages[0].goto(path)
    return visit


@pytest.mark.parametrize("path", ["/login", *PAGES, *PAGES_OF_ONE])
def test_a_page_is_for_everybody(readers: dict[bool, Visit], dashboard: Site, path: str) -> None:
    visit = reading(readers, dashboard, path, scripts=True)
    page = visit.context.pages[0]
    page.emulate_media(color_scheme="light")
    page.evaluate(_axe())
    assert not serious(page), "light"
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    assert not serious(page, ["color-contrast"]), "dark"
    page.set_viewport_size(PHONE)
    width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    page.set_viewport_size(DESK)
    assert width <= PHONE["width"], "it scrolls sideways on a phone"
    assert not visit.unexpected()


def test_the_docs_have_a_picture_of_every_page(dashboard: Site) -> None:
    docs = (ROOT / "docs/dashboard.md").read_text()
    for path in whole_pages(dashboard, ""):
        name = docs_picture(path)
        assert (ROOT / "docs/images" / name).is_file(), f"{path}: make screenshots DOCS=1"
        assert (ROOT / "docs/images" / name).stat().st_size <= MOST_BYTES
        assert f"(images/{name})" in docs, f"{name} stands nowhere in docs/dashboard.md"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_reads_without_scripts(readers: dict[bool, Visit], dashboard: Site, path: str) -> None:
    visit = reading(readers, dashboard, path, scripts=False)
    page = visit.context.pages[0]
    expect(page.locator("h1")).to_be_visible()
    expect(page.get_by_role("navigation", name="Sections").get_by_role("link", name="Overview")).to_be_visible()
    assert len(page.locator("main").inner_text().split()) > 3
    assert not visit.unexpected()


@pytest.mark.parametrize(
    "path", ["/dashboard/access/tokens", "/dashboard/access/tokens/1", "/dashboard/access/audit"]
)
def test_a_hostile_name_is_only_text(admin: Visit, path: str) -> None:
    page = admin.open(path)
    expect(page.locator("main")).to_contain_text(HOSTILE[0])
    if not path.endswith("1"):
        expect(page.locator("main")).to_contain_text(HOSTILE[1])
    assert page.locator("img[src=x], main script").count() == 0
    assert page.evaluate("window.harmed") is None


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_text_in_search_and_in_a_form_that_is_refused(admin: Visit, name: str) -> None:
    page = admin.open("/dashboard/access/users")
    admin.expected.append("422")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#e-name")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value(name)
    page.get_by_role("searchbox").press_sequentially(name[:12])
    expect(page.locator("#found a, #found q").first).to_be_visible()
    page.goto(f"/dashboard/search?q={name}")
    expect(page.locator("main")).to_contain_text(name)
    assert page.locator("img[src=x], main script").count() == 0
    assert page.evaluate("window.harmed") is None


def test_a_theme_is_kept(admin: Visit) -> None:
    page = admin.open("/dashboard/account")
    page.get_by_role("button", name="Theme: dark").click()
    root = page.locator("html")
    expect(root).to_have_attribute("data-bs-theme", "dark")
    page.reload()
    expect(root).to_have_attribute("data-bs-theme", "dark")
    expect(page.get_by_role("button", name="Theme: dark")).to_have_attribute("aria-pressed", "true")
    other = admin.open("/login")
    expect(other.locator("html")).to_have_attribute("data-bs-theme", "dark")
    page.get_by_role("button", name="Theme: auto").click()
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-bs-theme", "dark")
    page.emulate_media(color_scheme="light")
    expect(root).to_have_attribute("data-bs-theme", "light")


def test_a_theme_is_kept_without_scripts(dashboard: Site) -> None:
    visit = dashboard.visit(java_script_enabled=False)
    page = visit.open("/dashboard/account")
    page.get_by_role("button", name="Theme: dark").click()
    expect(page.get_by_role("heading", name="Your account", level=1)).to_be_visible()
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    visit.context.close()
    assert not visit.unexpected()


def test_the_rail_opens_on_a_phone(dashboard: Site) -> None:
    visit = dashboard.visit(viewport=PHONE)
    page = visit.open("/dashboard/")
    link = page.get_by_role("navigation", name="Sections").get_by_role("link", name="Access")
    expect(link).not_to_be_in_viewport()
    page.get_by_role("button", name="Menu").click()
    expect(link).to_be_in_viewport()
    link.click()
    expect(page.get_by_role("heading", name="Tokens", level=1)).to_be_visible()
    visit.context.close()
    assert not visit.unexpected()


def test_keys_lead_to_the_content_and_to_search(admin: Visit) -> None:
    page = admin.open("/dashboard/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("over")
    expect(page.locator("#found a").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#found a").first).to_be_focused()
