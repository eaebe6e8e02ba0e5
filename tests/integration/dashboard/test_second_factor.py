"""One's own second factor, by the pages alone."""

from __future__ import annotations

import re
from html import unescape

import pyotp

from app.dashboard.qr import QUIET, qr_code
from core.access.passwords import hash_password
from core.access.totp import otpauth_uri
from core.database.repositories.users import Users
from tests.integration.dashboard.conftest import Browser, House
from tests.integration.dashboard.test_models import actions
from tests.servers import PASSWORD

PAGE = "/dashboard/account/second-factor"


def somebody(house: House, name: str) -> Browser:
    async def add() -> None:
        async with house.platform.database.transaction() as session:
            await Users(session).add(name, await hash_password(PASSWORD), "viewer")

    house.run(add)
    browser = house.browser()
    assert browser.sign_in(name).status_code == 303
    return browser


def test_it_is_set_up_confirmed_renewed_and_switched_off(house: House) -> None:
    browser = somebody(house, "hopper")
    assert "Your password alone" in browser.get("/dashboard/account").text
    browser.get(PAGE)
    answer = browser.post(f"{PAGE}/begin", {"current_password": "not this one"})
    assert (answer.status_code, '<svg class="qr"' in answer.text) == (422, False)
    page = browser.post(f"{PAGE}/begin", {"current_password": PASSWORD}).text
    assert '<svg class="qr"' in page
    uri = re.search(r'href="(otpauth://[^"]+)"', page)
    assert uri is not None
    app = pyotp.parse_uri(unescape(uri[1]))
    assert isinstance(app, pyotp.TOTP)
    groups = re.search(r'<code id="secret">([A-Z2-7 ]+)</code>', page)
    assert groups is not None
    assert groups[1].replace(" ", "") == app.secret

    answer = browser.post(f"{PAGE}/confirm", {"code": "nothing"})
    assert (answer.status_code, "The code is wrong" in answer.text) == (422, True)
    assert app.secret not in answer.text.replace(" ", "")
    page = browser.post(f"{PAGE}/confirm", {"code": app.now()}).text
    codes = re.findall(r"\b(?:[a-z2-7]{4}-){3}[a-z2-7]{4}\b", page)
    assert len(codes) == 10
    assert codes[0] not in browser.get(PAGE).text
    assert "10 recovery codes are left" in browser.page

    page = browser.post(f"{PAGE}/recovery-codes", {"code": codes[0]}).text
    renewed = re.findall(r"\b(?:[a-z2-7]{4}-){3}[a-z2-7]{4}\b", page)
    assert (len(renewed), set(renewed) & set(codes)) == (10, set())
    browser.get(PAGE)
    answer = browser.post(f"{PAGE}/off", {"code": codes[1]})
    assert (answer.status_code, "The code is wrong" in answer.text) == (422, True)
    assert browser.post(f"{PAGE}/off", {"code": renewed[0]}).headers["location"] == PAGE
    assert "Your password" in browser.get(PAGE).text
    assert [action for action in actions(house, "hopper") if "totp" in action or "codes" in action] == [
        "auth.totp_begin",
        "auth.totp_enable",
        "auth.recovery_codes",
        "auth.totp_disable",
    ]


def test_a_qr_code_has_its_three_corners() -> None:
    code = qr_code(otpauth_uri("A" * 32, "ada"))
    dark = {tuple(map(int, one)) for one in re.findall(r"M(\d+) (\d+)h1v1h-1z", code.path)}
    assert min(x for x, _ in dark) == min(y for _, y in dark) == QUIET
    far = code.side - QUIET - 1
    for x, y in ((QUIET, QUIET), (far - 6, QUIET), (QUIET, far - 6)):
        ring = {(x + step, y) for step in range(7)} | {(x, y + step) for step in range(7)}
        assert ring <= dark
        assert (x + 1, y + 1) not in dark
