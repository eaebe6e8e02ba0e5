"""The life of a token, by the pages alone."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.served_pages import MODEL
from tests.browser.site import Site, Visit
from tests.servers import DEMO_IMAGES

IMAGE = (DEMO_IMAGES / "coffee.jpg").read_bytes()


def test_a_token_is_made_shown_once_used_limited_and_revoked(dashboard: Site, admin: Visit) -> None:
    page = admin.open("/dashboard/access/tokens")
    page.get_by_role("link", name="New token").click()
    page.get_by_label("Name", exact=True).fill("scanner")
    page.get_by_label("Models optional").fill(MODEL)
    page.get_by_label("Rates").fill("2/day")
    page.get_by_role("button", name="Make the token").click()
    secret = page.locator("#secret").inner_text()
    assert secret.startswith("pv_")
    expect(page.locator("#curl")).to_contain_text(secret)
    assert secret not in page.url
    answers = [dashboard.server.infer(MODEL, secret, content=IMAGE).status_code for _ in range(3)]
    assert answers == [200, 200, 429]

    page.goto("/dashboard/access/tokens")
    page.get_by_role("link", name="scanner").click()
    expect(page.get_by_role("heading", name="scanner", level=1)).to_be_visible()
    assert secret not in page.content()
    expect(page.get_by_text("2/day")).to_be_visible()

    page.get_by_role("button", name="Revoke…").click()
    dialog = page.get_by_role("dialog")
    verb = dialog.get_by_role("button", name="Revoke")
    expect(verb).to_be_disabled()
    dialog.get_by_role("textbox").fill("scanne")
    expect(verb).to_be_disabled()
    dialog.get_by_role("textbox").fill("scanner")
    verb.click()
    expect(page.get_by_role("status")).to_contain_text("The token scanner is revoked")
    row = page.get_by_role("row", name=re.compile("^scanner"))
    expect(row).to_contain_text(re.compile("revoked", re.IGNORECASE))
    assert dashboard.server.infer(MODEL, secret, content=IMAGE).status_code == 401
    page.reload()
    expect(page.get_by_role("status")).to_have_text("")

    page.goto("/dashboard/access/audit")
    for action in ("token.create", "token.revoke"):
        expect(page.get_by_role("main")).to_contain_text(action)


def test_a_secret_is_copied_and_a_token_rotated(dashboard: Site, admin: Visit) -> None:
    admin.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = admin.open("/dashboard/access/tokens/new")
    page.get_by_label("Name", exact=True).fill("printer")
    page.get_by_role("button", name="Make the token").click()
    first = page.locator("#secret").inner_text()
    page.get_by_role("button", name="Copy the secret").click()
    expect(page.get_by_role("status")).to_contain_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == first
    page.get_by_role("button", name="Rotate").click()
    expect(page.locator("#secret")).not_to_have_text(first)
    second = page.locator("#secret").inner_text()
    assert dashboard.server.infer(MODEL, first, content=IMAGE).status_code == 401
    assert dashboard.server.infer(MODEL, second, content=IMAGE).status_code == 200
