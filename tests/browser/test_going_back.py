"""Limits of going back by itself, and live samples, by the pages: with the keyboard, and without scripts."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.served_pages import MODEL
from tests.browser.site import Site
from tests.browser.test_pages import AXE, serious


def desired(dashboard: Site) -> Any:
    return dashboard.server.ok("GET", f"/models/{MODEL}/deployment")["desired"]


def open_by_keys(page: Page, words: str) -> None:
    page.get_by_text(words, exact=True).focus()
    page.keyboard.press("Enter")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_limits_of_going_back_and_live_samples_are_set_by_pages(dashboard: Site, scripts: bool) -> None:
    visit = dashboard.visit(java_script_enabled=scripts)
    visit.expected.append("422")
    page = visit.open(f"/dashboard/models/{MODEL}/deployment")
    expect(page.get_by_label("Watched for")).not_to_be_visible()
    open_by_keys(page, "Go back by itself")
    limit = page.get_by_label("Errors over")
    expect(limit).to_have_value("5")
    expect(limit).to_have_accessible_description(
        "Of its own requests: a caller's mistake and a full queue are none."
    )
    page.get_by_label("Go back where the new version does badly").check()
    limit.fill("200")
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(limit).to_be_visible()
    expect(page.locator("#e-error_percent")).to_contain_text("less than 100")
    expect(page.get_by_label("Go back where the new version does badly")).to_be_checked()
    if scripts:
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert not serious(page)
    limit.fill("1")
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(MODEL)
    assert desired(dashboard)["watch"] == {
        "window_s": 60.0,
        "max_error_rate": 0.01,
        "max_latency_ratio": 2.0,
        "min_requests": 20,
    }
    page.goto(f"/dashboard/models/{MODEL}/samples")
    page.get_by_label("Keep some of what callers send").check()
    page.get_by_label("Part of the calls").fill("2.5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Part of the calls")).to_have_value("2.5")
    assert desired(dashboard)["sample_live"] == {"rate": 0.025, "max_count": 200}
    page.get_by_label("Keep some of what callers send").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Keep some of what callers send")).not_to_be_checked()
    assert desired(dashboard)["sample_live"] is None
    page.goto(f"/dashboard/models/{MODEL}/deployment")
    page.get_by_label("Go back where the new version does badly").uncheck()
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(MODEL)
    assert desired(dashboard)["watch"] is None
    visit.context.close()
    assert not visit.unexpected()
