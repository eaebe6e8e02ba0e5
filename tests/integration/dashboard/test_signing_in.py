from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest
from sqlalchemy import update

from core.database.repositories.users import Users
from core.database.tables import Session, utc_now
from tests.integration.dashboard.conftest import OURS, Browser, House
from tests.servers import PASSWORD


def cookies_of(answer: object) -> dict[str, str]:
    lines = answer.headers.get_list("set-cookie")  # type: ignore[attr-defined]
    return {line.split("=", 1)[0]: line for line in lines if "Max-Age=0" not in line}


def test_signing_in_leads_to_the_page_that_was_asked_for(visitor: Browser) -> None:
    assert visitor.get("/dashboard/account").status_code == 401
    asked = re.search(r'name="next" value="([^"]*)"', visitor.page)
    assert asked is not None
    answer = visitor.post("/login", {"name": "admin", "password": PASSWORD, "next": asked[1]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/account")
    assert visitor.get("/dashboard/account").status_code == 200
    assert "<h1>Your account</h1>" in visitor.page


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/dashboard/../login",
        "javascript:alert(1)",
        "/dashboardx",
        "/dashboard/\r\nX: y",
    ],
)
def test_nobody_is_sent_elsewhere(visitor: Browser, path: str) -> None:
    visitor.get("/login", params={"next": path})
    assert 'name="next" value="/dashboard/"' in visitor.page
    answer = visitor.post("/login", {"name": "admin", "password": PASSWORD, "next": path})
    assert answer.headers["location"] == "/dashboard/"


@pytest.mark.parametrize("name", ["admin", "nobody", "<script>alert(1)</script>", ""])
def test_a_wrong_password_and_an_unknown_user_look_the_same(visitor: Browser, name: str) -> None:
    visitor.get("/login")
    answer = visitor.post("/login", {"name": name, "password": "wrong", "next": "/dashboard/"})
    assert answer.status_code == 401
    assert "The user name or the password is wrong." in answer.text
    assert "<script>alert" not in answer.text
    assert not cookies_of(answer)


def test_the_cookie_is_kept_from_scripts_and_from_other_sites(house: House) -> None:
    plain = cookies_of(house.browser().sign_in())["pulvinar"]
    assert "HttpOnly" in plain
    assert "SameSite=lax" in plain
    assert "Secure" not in plain
    secure = cookies_of(house.browser("https://testserver").sign_in())["__Host-pulvinar"]
    for attribute in ("HttpOnly", "SameSite=lax", "Secure", "Path=/"):
        assert attribute in secure


def test_a_proxy_s_tls_is_seen_by_the_origin_of_the_form(visitor: Browser) -> None:
    visitor.get("/login")
    answer = visitor.post(
        "/login", {"name": "admin", "password": PASSWORD}, headers={"Origin": "https://testserver"}
    )
    assert "Secure" in cookies_of(answer)["__Host-pulvinar"]


def test_each_sign_in_is_a_session_of_its_own_and_ends_the_one_before(visitor: Browser) -> None:
    visitor.sign_in()
    before = visitor.client.cookies["pulvinar"]
    visitor.sign_in()
    after = visitor.client.cookies["pulvinar"]
    assert before.split(".")[0] != after.split(".")[0]
    visitor.client.cookies.clear()
    visitor.client.cookies.set("pulvinar", before)
    assert visitor.get("/dashboard/").status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "a.b", "0" * 32 + ".x", "x" * 5000, "' OR 1=1 --.x"])
def test_a_cookie_of_nobody_is_no_session(visitor: Browser, cookie: str) -> None:
    visitor.client.cookies.set("pulvinar", cookie)
    assert visitor.get("/dashboard/").status_code == 401


def test_a_session_with_another_secret_is_refused(admin: Browser) -> None:
    session_id = admin.client.cookies["pulvinar"].split(".")[0]
    admin.client.cookies.clear()
    admin.client.cookies.set("pulvinar", f"{session_id}.{'x' * 43}")
    assert admin.get("/dashboard/").status_code == 401


def test_signing_out_ends_the_session_on_the_server(admin: Browser) -> None:
    cookie = admin.client.cookies["pulvinar"]
    answer = admin.post("/dashboard/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    admin.client.cookies.set("pulvinar", cookie)
    assert admin.get("/dashboard/").status_code == 401


def test_a_session_that_is_not_used_ends(house: House, admin: Browser) -> None:
    async def age(minutes: int) -> None:
        used = utc_now() - timedelta(minutes=minutes)
        session_id = admin.client.cookies["pulvinar"].split(".")[0]
        async with house.platform.database.transaction() as session:
            await session.execute(update(Session).where(Session.id == session_id).values(last_used_at=used))

    house.run(age, 479)
    assert admin.get("/dashboard/").status_code == 200
    assert admin.get("/dashboard/").status_code == 200  # its use was noted, so the time begins anew
    house.run(age, 481)
    assert admin.get("/dashboard/").status_code == 401
    assert "Your session has ended." in admin.page


def test_a_form_sent_after_the_session_comes_back(house: House, admin: Browser) -> None:
    fields = {"name": "O'Neill <b>", "note": "two\nlines", "current_password": "not to be kept"}
    admin.client.cookies.delete("pulvinar")
    answer = admin.post("/dashboard/theme", fields)
    assert answer.status_code == 401
    assert "what you had entered comes back" in answer.text
    assert "not to be kept" not in answer.text
    kept = re.search(r'name="kept" value="([^"]+)"', admin.page)
    assert kept is not None
    answer = admin.post("/login", {"name": "admin", "password": PASSWORD, "next": "/dashboard/", "kept": kept[1]})
    assert answer.status_code == 200
    for name, value in (("name", fields["name"]), ("note", fields["note"])):
        found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', answer.text)
        assert found is not None
        assert unescape(found[1]) == value
    assert "O&#39;Neill &lt;b&gt;" in answer.text
    assert "Passwords and files are not kept" in answer.text
    assert admin.post("/dashboard/theme", {"theme": "dark"}).status_code == 303


def test_a_form_that_was_not_kept_here_does_not_come_back(visitor: Browser) -> None:
    visitor.get("/login")
    answer = visitor.post("/login", {"name": "admin", "password": PASSWORD, "kept": "e30=." + "0" * 64})
    assert answer.status_code == 303


def test_a_part_of_a_page_asks_the_whole_page_to_load_anew(visitor: Browser) -> None:
    answer = visitor.get("/dashboard/search?q=x", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-refresh"]) == (401, "true")


def test_who_must_change_the_password_sees_nothing_before(house: House) -> None:
    async def make() -> None:
        from core.access.passwords import hash_password

        async with house.platform.database.transaction() as session:
            hashed = await hash_password(PASSWORD)
            await Users(session).add("newcomer", hashed, "viewer", must_change_password=True)

    house.run(make)
    browser = house.browser()
    browser.sign_in("newcomer")
    answer = browser.get("/dashboard/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/account/password")
    browser.get("/dashboard/account/password")
    chosen = "new and long enough"
    good = {"current_password": PASSWORD, "new_password": chosen, "again": chosen}
    for said, message in [
        ({"current_password": "wrong"}, "The present password is wrong."),
        ({"again": "something else"}, "not the same"),
        ({"new_password": PASSWORD, "again": PASSWORD}, "take another"),
        ({"new_password": "short", "again": "short"}, "8"),
        ({"new_password": ""}, "Fill this in."),
    ]:
        answer = browser.post("/dashboard/account/password", {**good, **said})
        assert answer.status_code == 422
        assert message in answer.text, said
    answer = browser.post("/dashboard/account/password", good)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/")
    assert browser.get("/dashboard/").status_code == 200
    assert "Your password is changed." in browser.page
    assert "Your password is changed." not in browser.get("/dashboard/").text


def test_a_sign_in_without_its_token_or_from_elsewhere_is_refused(visitor: Browser) -> None:
    said = {"name": "admin", "password": PASSWORD}
    assert visitor.client.post("/login", data=said, headers=OURS).status_code == 400
    visitor.get("/login")
    answer = visitor.post("/login", said, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "another site" in answer.text


def test_the_second_factor_is_asked_for_after_the_password(house: House) -> None:
    import pyotp

    from core.access.sessions import Caller

    browser = house.browser()
    secrets: list[str] = []

    async def enrol() -> None:
        from core.access.passwords import hash_password

        access = house.platform.access
        async with house.platform.database.transaction() as session:
            await Users(session).add("careful", await hash_password(PASSWORD), "viewer")
        user = (await access.sessions.login("careful", PASSWORD)).user
        enrolment = await access.own_account.begin_second_factor(user, PASSWORD, Caller())
        code = pyotp.TOTP(enrolment.secret).now()
        secrets.extend(await access.own_account.confirm_second_factor(user, code, Caller()))

    house.run(enrol)
    browser.get("/dashboard/account")
    answer = browser.post("/login", {"name": "careful", "password": PASSWORD, "next": "/dashboard/account"})
    assert (answer.status_code, "authenticator app" in answer.text) == (200, True)
    assert browser.get("/dashboard/account").status_code == 401
    assert "authenticator app" in browser.page
    answer = browser.post("/login/code", {"code": "000000", "next": "/dashboard/account"})
    assert (answer.status_code, "The code is wrong" in answer.text) == (401, True)
    answer = browser.post("/login/code", {"code": secrets[0], "next": "/dashboard/account"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/account")
    assert browser.get("/dashboard/account").status_code == 200
