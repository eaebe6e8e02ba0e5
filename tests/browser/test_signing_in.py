"""From the first sign-in to a session that ends too early."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.site import OWN_PASSWORD, Site, Visit, add_user, change_password, sign_in


def make_token(page: Page, name: str) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Make the token").click()


def test_a_new_user_chooses_a_password_first(admin: Visit, visitor: Visit) -> None:
    password = add_user(admin.open("/dashboard/access/users"), "grace")
    page = visitor.open("/dashboard/account")
    sign_in(page, "grace", password)
    expect(page.get_by_role("heading", name="Choose your own password")).to_be_visible()
    page.goto("/dashboard/")
    expect(page.get_by_role("heading", name="Choose your own password")).to_be_visible()
    change_password(page, password)
    expect(page.get_by_role("status")).to_contain_text("Your password is changed.")
    expect(page.get_by_role("link", name="Access")).to_have_count(0)
    page.locator(".user").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/login$"))
    sign_in(page, "grace", password)
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    sign_in(page, "grace", OWN_PASSWORD)
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()


def test_a_wrong_password_says_so_and_keeps_the_name(visitor: Visit) -> None:
    page = visitor.open("/login")
    sign_in(page, "admin", "not the password")
    expect(page.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    expect(page.get_by_label("User name")).to_have_value("admin")
    expect(page.get_by_label("Password", exact=True)).to_have_value("")
    expect(page.get_by_label("Password", exact=True)).to_be_focused()


def test_a_form_outlives_its_session_which_another_tab_has_ended(visitor: Visit) -> None:
    page = visitor.open("/dashboard/access/tokens/new")
    sign_in(page)
    page.get_by_label("Rates").fill("5/day")
    other = visitor.open("/dashboard/")
    other.locator(".user").click()
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    make_token(page, "half <b>written</b>")
    expect(page.get_by_text("what you had entered comes back")).to_be_visible()
    sign_in(page)
    expect(page.get_by_role("main")).to_contain_text("half <b>written</b>")
    page.get_by_role("button", name="Send it now").click()
    expect(page.get_by_role("heading", name="half <b>written</b>")).to_be_visible()
    expect(page.get_by_text("5/day")).to_be_visible()
    expect(page.locator("#secret")).to_have_text(re.compile("^pv_"))


def test_a_tab_of_the_session_before_does_nothing_until_it_is_loaded_again(visitor: Visit) -> None:
    visitor.expected.append("403")
    page = visitor.open("/dashboard/access/tokens/new")
    sign_in(page)
    expect(page.get_by_role("heading", name="New token")).to_be_visible()
    other = visitor.open("/login")
    sign_in(other)
    expect(other.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    make_token(page, "of an old tab")
    expect(page.get_by_role("main")).to_contain_text("nothing was done")
    page.goto("/dashboard/access/tokens")
    expect(page.get_by_role("main")).not_to_contain_text("of an old tab")
    expect(page.get_by_role("main")).to_contain_text("mobile app")


def test_signing_in_needs_no_scripts(dashboard: Site) -> None:
    visit = dashboard.visit(signed_in=False, java_script_enabled=False)
    visit.expected.append("401")
    page = visit.open("/dashboard/access/audit")
    sign_in(page)
    expect(page.get_by_role("heading", name="Audit log", level=1)).to_be_visible()
    visit.context.close()
    assert not visit.unexpected()
