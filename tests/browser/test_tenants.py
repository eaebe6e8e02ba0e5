"""A tenant with a budget, and one's second factor, by the pages alone."""

from __future__ import annotations

import pyotp
from playwright.sync_api import expect

from tests.browser.served_pages import MODEL
from tests.browser.site import Site, Visit
from tests.browser.test_pages import _axe, serious
from tests.servers import DEMO_IMAGES, PASSWORD, wait_until

IMAGE = (DEMO_IMAGES / "coffee.jpg").read_bytes()


def test_a_tenant_is_limited_drawn_and_paused(dashboard: Site, admin: Visit) -> None:
    page = admin.open("/dashboard/access/tenants")
    page.get_by_role("link", name="New tenant").click()
    page.get_by_label("Name", exact=True).fill("red")
    page.get_by_label("Budgets optional").fill("2 requests/day")
    page.get_by_role("button", name="Make the tenant").click()
    page.get_by_role("link", name="Make its first token").click()
    expect(page.get_by_label("Tenant")).to_have_value("red")
    page.get_by_label("Name", exact=True).fill("of red")
    page.get_by_role("button", name="Make the token").click()
    secret = page.locator("#secret").inner_text()
    codes = [dashboard.server.infer(MODEL, secret, content=IMAGE).status_code for _ in range(3)]
    assert codes == [200, 200, 429]

    page.goto("/dashboard/access/tenants")
    page.get_by_role("link", name="red", exact=True).click()

    def spent() -> bool:
        page.reload()
        return page.get_by_text("2 used, 100").count() > 0

    wait_until("usage to be written", spent)
    expect(page.locator(".chart canvas")).to_be_visible()
    page.evaluate(_axe())
    assert not serious(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status")).to_contain_text("refused from now on")
    assert dashboard.server.infer(MODEL, secret, content=IMAGE).status_code == 403
    page.goto("/dashboard/access/usage?by=tenant&span=day")
    expect(page.locator(".chart canvas")).to_be_visible()
    page.get_by_role("link", name="red", exact=True).click()
    expect(page.get_by_role("main")).to_contain_text("Only of tenant red")


def test_a_second_factor_is_set_up_by_the_page(dashboard: Site) -> None:
    dashboard.server.user("lovelace", "viewer")
    visit = dashboard.visit(signed_in=False)
    visit.expected += ["401", "422"]
    page = visit.open("/dashboard/account/second-factor")
    page.get_by_label("User name").fill("lovelace")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Set it up").click()
    expect(page.get_by_role("img", name="QR code")).to_be_visible()
    page.evaluate(_axe())
    assert not serious(page)
    secret = page.locator("#secret").inner_text().replace(" ", "")
    page.get_by_label("The code that the app shows now").fill("000000")
    page.get_by_role("button", name="Switch it on").click()
    expect(page.locator("#e-code")).to_contain_text("The code is wrong")
    assert secret not in page.content().replace(" ", "")
    page.get_by_label("The code that the app shows now").fill(pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Switch it on").click()
    expect(page.locator("#secret")).to_be_visible()
    assert len(page.locator("#secret").inner_text().split()) == 10
    visit.context.close()
    assert not visit.unexpected()
