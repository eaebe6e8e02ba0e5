from __future__ import annotations

import re
from html import unescape

import pytest

from tests.integration.dashboard.conftest import Browser, House
from tests.servers import PASSWORD

HOSTILE = '"><script>alert(1)</script>'


def make_token(admin: Browser, **fields: str) -> str:
    """Make a token by the form; answers its page's path."""
    admin.get("/dashboard/access/tokens/new")
    answer = admin.post("/dashboard/access/tokens/new", fields)
    assert answer.status_code == 200, answer.text
    found = re.search(r"/dashboard/access/tokens/\d+", answer.text)
    assert found is not None
    return found[0]


def test_a_token_s_secret_is_shown_once_and_works(admin: Browser) -> None:
    path = make_token(admin, name="mobile", days="30", models="cats, ocr-*", rate="100/second", operations="list")
    secret = re.search(r'<code id="secret">(pv_[\w-]+)</code>', admin.page)
    assert secret is not None
    assert f"X-Access-Token: {secret[1]}" in unescape(admin.page)
    assert admin.client.get("/api/v1/models", headers={"X-Access-Token": secret[1]}).status_code == 200
    page = admin.get(path).text
    assert secret[1] not in page
    for text in ("mobile", "cats, ocr-*", "100/second", "in 29 days"):
        assert text in page, text
    assert "mobile" in admin.get("/dashboard/access/tokens").text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Fill this in."),
        ({"name": "x", "rate": "often"}, "often"),
        ({"name": "x", "ip_allow": "nowhere"}, "not a network"),
        ({"name": "x", "max_concurrency": "0"}, "greater than or equal to 1"),
        ({"name": "x", "tenant": "nobody"}, "no tenant called"),
        ({"name": "x", "operations": "destroy"}, "destroy"),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(
    admin: Browser, fields: dict[str, str], message: str
) -> None:
    admin.get("/dashboard/access/tokens/new")
    answer = admin.post("/dashboard/access/tokens/new", {**fields, "models": "kept-*"})
    assert answer.status_code == 422
    assert message in unescape(answer.text)
    assert 'value="kept-*"' in answer.text


def test_a_token_is_revoked_by_its_name_only(admin: Browser) -> None:
    path = make_token(admin, name=HOSTILE)
    assert "<script>alert" not in admin.page
    answer = admin.post(f"{path}/revoke", {"confirm": "something else"})
    assert (answer.status_code, "Nothing was done" in answer.text) == (422, True)
    assert admin.post(f"{path}/revoke", {"confirm": HOSTILE}).status_code == 303
    page = admin.get("/dashboard/access/tokens").text
    assert "is revoked; calls with it are refused" in page
    assert "<script>alert" not in page
    assert "revoked" in admin.get(path).text


def test_a_new_secret_replaces_the_old_one(admin: Browser) -> None:
    path = make_token(admin, name="rotated")
    old = re.search(r"pv_[\w-]{20,}", admin.page)
    admin.post(f"{path}/rotate", {"grace_s": "0"})
    new = re.search(r"pv_[\w-]{20,}", admin.page)
    assert old is not None
    assert new is not None
    assert admin.client.get("/api/v1/models", headers={"X-Access-Token": old[0]}).status_code == 401
    assert admin.client.get("/api/v1/models", headers={"X-Access-Token": new[0]}).status_code == 200


def test_a_user_is_added_changed_and_removed(house: House, admin: Browser) -> None:
    admin.get("/dashboard/access/users")
    answer = admin.post("/dashboard/access/users", {"name": "ada", "role": "operator"})
    password = re.search(r'<code id="secret">([^<]+)</code>', answer.text)
    path = re.search(r"/dashboard/access/users/\d+", answer.text)
    assert password is not None
    assert path is not None
    ada = house.browser()
    assert ada.sign_in("ada", unescape(password[1])).status_code == 303
    assert ada.get("/dashboard/").headers["location"] == "/dashboard/account/password"
    admin.get("/dashboard/access/users")
    again = admin.post("/dashboard/access/users", {"name": "ada", "role": "viewer"})
    assert (again.status_code, "already" in again.text) == (422, True)
    admin.get(path[0])
    assert admin.post(f"{path[0]}/change", {"disabled": "true"}).status_code == 303
    assert ada.get("/dashboard/").status_code == 401
    admin.get(path[0])
    assert admin.post(f"{path[0]}/remove", {"confirm": "eve"}).headers["location"] == path[0]
    admin.get(path[0])
    assert admin.post(f"{path[0]}/remove", {"confirm": "ada"}).headers["location"] == "/dashboard/access/users"
    assert admin.get(path[0]).status_code == 404


def test_the_last_administrator_stays(admin: Browser) -> None:
    path = re.search(r'(/dashboard/access/users/\d+)">admin<', admin.get("/dashboard/access/users").text)
    assert path is not None
    admin.get(path[1])
    answer = admin.post(f"{path[1]}/change", {"role": "viewer"})
    assert (answer.status_code, "last administrator" in answer.text) == (409, True)


def test_rules_about_addresses(admin: Browser) -> None:
    admin.get("/dashboard/access/addresses")
    said = {"cidr": "192.0.2.0/24", "action": "deny", "scope": "external", "note": HOSTILE}
    assert admin.post("/dashboard/access/addresses", said).status_code == 303
    page = admin.get("/dashboard/access/addresses?address=192.0.2.7").text
    assert "192.0.2.7 does not pass, by rule" in page
    assert "<script>alert" not in page
    assert "192.0.3.7 passes" in admin.get("/dashboard/access/addresses?address=192.0.3.7").text
    assert "is not an address" in unescape(admin.get("/dashboard/access/addresses?address=nowhere").text)
    remove = re.search(r"/dashboard/access/addresses/\d+/remove", admin.page)
    assert remove is not None
    assert admin.post(remove[0]).status_code == 303
    assert "192.0.2.7 passes" in admin.get("/dashboard/access/addresses?address=192.0.2.7").text
    answer = admin.post("/dashboard/access/addresses", {**said, "cidr": "everywhere"})
    assert (answer.status_code, "is not a network" in answer.text) == (422, True)


def test_the_audit_log_by_filters(admin: Browser) -> None:
    make_token(admin, name="noted")
    page = admin.get("/dashboard/access/audit?action=token.&subject=noted&span=hour").text
    assert "token.create" in page
    assert "auth.login" not in page
    assert "Nothing like this" in admin.get("/dashboard/access/audit?actor=no-such-actor").text
    assert "auth.login" in admin.get("/dashboard/access/audit?action=auth.").text


def test_the_audit_log_is_walked_and_taken_away(admin: Browser) -> None:
    page = admin.get("/dashboard/access/audit?verify=true").text
    assert "none is missing, added or changed" in page
    csv = admin.client.get("/dashboard/access/audit/export?format=csv")
    assert csv.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    assert csv.text.splitlines()[0].startswith("position,")
    assert admin.client.get("/dashboard/access/audit/export?format=jsonl").text.startswith("{")


def test_keys_are_rotated_and_one_that_leaked_is_removed(admin: Browser) -> None:
    path = "/dashboard/access/keys"
    before = re.findall(r'"font-monospace">(0|[0-9a-f]{16})<', admin.get(path).text)
    assert admin.post(f"{path}/rotate", {"activate_in_s": "0"}).headers["location"] == path
    after = re.findall(r'"font-monospace">(0|[0-9a-f]{16})<', admin.get(path).text)
    assert len(after) == len(before) + 1
    old = before[-1]
    assert admin.post(f"{path}/{old}/remove", {"confirm": "another"}).status_code == 400
    admin.get(path)
    assert admin.post(f"{path}/{old}/remove", {"confirm": old}).status_code == 303
    admin.get(path)
    (signs,) = set(after) - set(before)
    answer = admin.post(f"{path}/{signs}/remove", {"confirm": signs})
    assert answer.status_code == 409


def test_only_administrators_see_access(house: House) -> None:
    async def make() -> None:
        from core.access.passwords import hash_password
        from core.database.repositories.users import Users

        async with house.platform.database.transaction() as session:
            await Users(session).add("looker", await hash_password(PASSWORD), "viewer")

    house.run(make)
    looker = house.browser()
    looker.sign_in("looker")
    assert 'href="/dashboard/access"' not in looker.get("/dashboard/").text
    for page in ("", "/tokens", "/tokens/new", "/tenants", "/usage", "/users", "/addresses", "/keys", "/audit"):
        answer = looker.get(f"/dashboard/access{page}")
        assert answer.status_code == 403
        assert "This needs the role admin" in answer.text
    looker.get("/dashboard/account")
    assert looker.post("/dashboard/access/tokens/new", {"name": "mine"}).status_code == 403
