"""The overview moves by itself, and asks for little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.served_pages import MODEL
from tests.browser.site import Site, Visit
from tests.browser.test_hidden_tabs import HIDE
from tests.servers import DEMO_IMAGES, demo_package

NAME = "late"


@pytest.fixture
def late(dashboard: Site) -> Iterator[str]:
    """A model that is not in service yet."""
    dashboard.server.upload(NAME, demo_package())
    yield NAME
    dashboard.server.ok("DELETE", f"/models/{NAME}/deployment")
    dashboard.server.ok("DELETE", f"/models/{NAME}")


def _until(page: Page, chart: str) -> int:
    return int(page.locator(f'[data-chart$="/{chart}"]').get_attribute("data-until") or 0)


def test_charts_go_on_by_live_figures(dashboard: Site, admin: Visit) -> None:
    page = admin.context.new_page()
    page.goto("/dashboard/")
    expect(page.locator("[data-chart] canvas")).to_have_count(2)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = _until(page, "requests")
    image = (DEMO_IMAGES / "coffee.jpg").read_bytes()
    for _ in range(2):
        last = _until(page, "latency")
        token = dashboard.server.token(name="mobile app")
        assert dashboard.server.infer(MODEL, token, content=image).status_code == 200
        page.wait_for_function(
            """(last) =>
              [...document.querySelectorAll("[data-chart]")].every((one) => one.dataset.until > last)""",
            arg=last,
        )
    assert _until(page, "requests") == _until(page, "latency") > before
    assert [url for url in asked if "/history/requests" in url] == []


def test_a_new_deployment_shows_before_the_page_would_have_looked(
    dashboard: Site, admin: Visit, late: str
) -> None:
    page = admin.open("/dashboard/")
    asked: list[str] = []
    row = page.locator(f'tr[data-model="{late}"]')
    expect(page.locator(f'tr[data-model="{MODEL}"]')).to_be_visible()
    expect(row).to_have_count(0)
    page.locator("#parts").evaluate("(part) => part.removeAttribute('hx-trigger')")
    page.on("request", lambda request: asked.append(request.url))
    dashboard.server.deploy(late)
    expect(row).to_be_visible(timeout=17_000)
    expect(row.locator("[data-state]")).to_contain_text("serving", timeout=25_000)
    if not any("/history/changes" in url for url in asked):  # a mark in the charts follows seconds later
        page.wait_for_event("request", lambda request: "/history/changes" in request.url)
    assert all("?edition=" in url for url in asked if "/overview/parts" in url)


def test_what_changed_while_nobody_looked_is_shown_at_once(dashboard: Site, admin: Visit, late: str) -> None:
    page = admin.open("/dashboard/")
    row = page.locator(f'tr[data-model="{late}"]')
    expect(page.locator(f'tr[data-model="{MODEL}"]')).to_be_visible()
    with page.expect_event("console", lambda message: message.text == "told"):
        page.evaluate("""() => addEventListener("pulvinar:figures", () => console.log("told"), { once: true })""")
    page.evaluate(HIDE, True)
    dashboard.server.deploy(late)
    page.evaluate(HIDE, False)
    expect(row).to_be_visible(timeout=15_000)
