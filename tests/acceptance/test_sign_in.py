"""Signing in and out, and what ends a session."""

from __future__ import annotations

import base64
import json
import time
from statistics import median
from typing import Any

import httpx
import pyotp
import pytest

from tests.acceptance.answers import refused
from tests.conftest import Demo, StartServer
from tests.servers import INTERNAL, PASSWORD, RunningServer, wait_until


def _login(server: RunningServer, username: str, password: str = PASSWORD) -> httpx.Response:
    return server.client.post(f"{INTERNAL}/auth/login", json={"username": username, "password": password})


def _me(server: RunningServer, token: str) -> httpx.Response:
    return server.client.get(f"{INTERNAL}/auth/me", headers={"X-Auth-Token": token})


def _call(server: RunningServer, token: str, method: str, path: str, **body: Any) -> httpx.Response:
    return server.client.request(method, f"{INTERNAL}{path}", headers={"X-Auth-Token": token}, json=body or None)


def test_a_wrong_password_and_an_unknown_user_are_told_the_same(demo: Demo) -> None:
    demo.server.user("disabled1", "viewer")
    users = demo.server.ok("GET", "/users")["items"]
    number = next(user["id"] for user in users if user["name"] == "disabled1")
    demo.server.ok("PATCH", f"/users/{number}", json={"disabled": True})
    messages = set()
    attempts = [
        ("admin", "wrong password"),
        ("nobody", "wrong password"),
        ("disabled1", PASSWORD),
        ("", ""),
        ("a\0b", "x"),
    ]
    for name, password in attempts:
        messages.add(refused(_login(demo.server, name, password), 401, "unauthenticated")["message"])
    assert len(messages) == 1
    assert demo.server.ok("GET", "/audit?action=auth.login_failed")["items"]


def test_a_wrong_password_and_an_unknown_user_take_the_same_time(demo: Demo) -> None:
    def seconds(name: str) -> float:
        before = time.perf_counter()
        refused(_login(demo.server, name, "wrong password"), 401)
        return time.perf_counter() - before

    known, unknown = [], []
    for _ in range(7):
        known.append(seconds("admin"))
        unknown.append(seconds("nobody"))
    assert 0.4 < median(known) / median(unknown) < 2.5


def test_attempts_are_throttled(start_server: StartServer) -> None:
    server = start_server({"PULVINAR_ACCESS__LOGIN_RATE": "3/hour"})
    answers = [_login(server, "admin", "wrong password") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    refused(answers[3], 429, "limit_exceeded")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 3600
    # Whoever claims another address is still the same.
    answer = server.client.post(
        f"{INTERNAL}/auth/login",
        json={"username": "admin", "password": PASSWORD},
        headers={"X-Forwarded-For": "10.0.0.1"},
    )
    refused(answer, 429, "limit_exceeded")


def test_signing_out_ends_the_session_at_once(demo: Demo) -> None:
    one, other = (_login(demo.server, "admin").json() for _ in range(2))
    assert _me(demo.server, one["token"]).json() == {"username": "admin", "role": "admin"}
    assert _call(demo.server, one["token"], "POST", "/auth/logout").status_code == 204
    refused(_me(demo.server, one["token"]), 401, "unauthenticated")
    refused(_call(demo.server, "", "POST", "/auth/refresh", refresh_token=one["refresh_token"]), 401)
    assert _me(demo.server, other["token"]).status_code == 200


def test_disabling_a_user_ends_the_sessions_at_once(demo: Demo) -> None:
    number = demo.server.user("leaver", "operator")
    session = _login(demo.server, "leaver").json()
    demo.server.ok("PATCH", f"/users/{number}", json={"disabled": True})
    refused(_me(demo.server, session["token"]), 401)
    refused(_call(demo.server, "", "POST", "/auth/refresh", refresh_token=session["refresh_token"]), 401)
    demo.server.ok("PATCH", f"/users/{number}", json={"disabled": False})
    refused(_me(demo.server, session["token"]), 401)
    assert _login(demo.server, "leaver").status_code == 200


def test_a_role_that_is_taken_away_is_gone_at_once(demo: Demo) -> None:
    number = demo.server.user("demoted", "admin")
    token = _login(demo.server, "demoted").json()["token"]
    assert _call(demo.server, token, "GET", "/users").status_code == 200
    demo.server.ok("PATCH", f"/users/{number}", json={"role": "viewer"})
    refused(_call(demo.server, token, "GET", "/users"), 403)


def test_removing_a_user_ends_the_sessions(demo: Demo) -> None:
    number = demo.server.user("removed", "viewer")
    token = _login(demo.server, "removed").json()["token"]
    assert demo.server.api("DELETE", f"/users/{number}").status_code == 204
    refused(_me(demo.server, token), 401)
    refused(_login(demo.server, "removed"), 401)


def test_a_refresh_token_works_once(demo: Demo) -> None:
    first = _login(demo.server, "admin").json()
    second = _call(demo.server, "", "POST", "/auth/refresh", refresh_token=first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert _me(demo.server, second["token"]).status_code == 200
    # Used again, one of the two is a thief: the session ends for both.
    refused(_call(demo.server, "", "POST", "/auth/refresh", refresh_token=first["refresh_token"]), 401)
    refused(_me(demo.server, second["token"]), 401)
    refused(_call(demo.server, "", "POST", "/auth/refresh", refresh_token=second["refresh_token"]), 401)


@pytest.mark.parametrize("token", ["", "x", ".", "a.b", "a" * 500, "é.é", "0" * 32 + ".x"])
def test_a_refresh_token_that_is_none(demo: Demo, token: str) -> None:
    refused(_call(demo.server, "", "POST", "/auth/refresh", refresh_token=token), 401, "unauthenticated")


def test_changing_the_password_ends_the_other_sessions(demo: Demo) -> None:
    demo.server.user("changer", "viewer")
    mine, other = (_login(demo.server, "changer").json()["token"] for _ in range(2))
    change = {"current_password": "wrong", "new_password": "another long one"}
    refused(_call(demo.server, mine, "POST", "/auth/password", **change), 401)
    refused(
        _call(
            demo.server,
            mine,
            "POST",
            "/auth/password",
            **{**change, "current_password": PASSWORD, "new_password": "short"},
        ),
        422,
    )
    assert (
        _call(demo.server, mine, "POST", "/auth/password", **{**change, "current_password": PASSWORD}).status_code
        == 204
    )
    assert _me(demo.server, mine).status_code == 200
    refused(_me(demo.server, other), 401)
    refused(_login(demo.server, "changer"), 401)
    assert _login(demo.server, "changer", "another long one").status_code == 200


def test_the_last_administrator_stays(start_server: StartServer) -> None:
    server = start_server()
    number = server.ok("GET", "/users")["items"][0]["id"]
    for change in ({"disabled": True}, {"role": "operator"}):
        refused(server.api("PATCH", f"/users/{number}", json=change), 409, "conflict", "last administrator")
    refused(server.api("DELETE", f"/users/{number}"), 409, "conflict", "last administrator")
    second = server.user("second", "admin")
    server.ok("PATCH", f"/users/{number}", json={"role": "operator"})
    refused(server.api("DELETE", f"/users/{second}", user="second"), 409, "conflict")


def test_a_second_factor_on_the_wire(demo: Demo) -> None:
    server = demo.server
    number = server.user("careful", "viewer")
    token = _login(server, "careful").json()["token"]
    refused(_call(server, token, "POST", "/auth/totp", current_password="wrong"), 401)
    begun = _call(server, token, "POST", "/auth/totp", current_password=PASSWORD).json()
    totp = pyotp.parse_uri(begun["otpauth_uri"])
    assert totp.secret == begun["secret"]
    refused(_call(server, token, "POST", "/auth/totp/confirm", code="000000"), 401)
    code = totp.now()
    codes = _call(server, token, "POST", "/auth/totp/confirm", code=code).json()["recovery_codes"]
    half = _login(server, "careful").json()
    assert (half["next"], half["refresh_token"]) == ("second_factor", None)
    for method, path in (("GET", "/auth/me"), ("GET", "/models"), ("POST", "/auth/logout"), ("GET", "/auth/totp")):
        refused(_call(server, half["token"], method, path), 403, "second_factor_required")
    refused(_call(server, half["token"], "POST", "/auth/second-factor", code=code), 401)  # used to confirm
    whole = _call(server, half["token"], "POST", "/auth/second-factor", code=codes[0]).json()
    assert whole["next"] is None
    assert _me(server, whole["token"]).status_code == 200
    refused(_me(server, half["token"]), 401)
    assert _call(server, whole["token"], "GET", "/auth/totp").json()["recovery_codes_left"] == 9
    refused(_call(server, whole["token"], "POST", "/auth/second-factor", code=codes[1]), 401)
    assert server.api("DELETE", f"/users/{number}/totp").status_code == 204
    refused(server.api("DELETE", f"/users/{number}/totp"), 409, "conflict")
    assert _login(server, "careful").json()["next"] is None


def test_a_password_that_somebody_else_has_chosen_is_changed_first(demo: Demo) -> None:
    server = demo.server
    body = {"name": "newcomer", "password": PASSWORD, "role": "admin", "must_change_password": True}
    server.ok("POST", "/users", json=body)
    session = _login(server, "newcomer").json()
    assert session["next"] == "password"
    for method, path in (("GET", "/models"), ("GET", "/users"), ("POST", "/auth/totp"), ("GET", "/auth/sessions")):
        refused(_call(server, session["token"], method, path), 403, "password_change_required")
    assert _me(server, session["token"]).status_code == 200
    change = {"current_password": PASSWORD, "new_password": "one of my own choice"}
    assert _call(server, session["token"], "POST", "/auth/password", **change).status_code == 204
    assert _call(server, session["token"], "GET", "/users").status_code == 200


def test_users_are_managed_on_the_command_line(demo: Demo) -> None:
    server = demo.server
    made = server.cli("user", "create", "cleo", "--password-stdin", "--must-change", stdin=f"{PASSWORD}\n")
    assert made.returncode == 0
    assert _login(server, "cleo").json()["next"] == "password"
    assert "cleo\tviewer\tactive\tpassword, to be changed" in server.cli("user", "list").stdout
    assert "127.0.0.1\tpython-httpx" in server.cli("user", "sessions", "cleo").stdout
    assert "1 sessions" in server.cli("user", "sessions", "cleo", "--end").stdout
    for arguments in (("role", "cleo", "operator"), ("disable", "cleo"), ("enable", "cleo"), ("remove", "cleo")):
        assert server.cli("user", *arguments).returncode == 0, arguments
    refused_ones = (("reset-totp", "admin"), ("role", "nobody", "admin"), ("remove", "cleo"))
    assert [server.cli("user", *arguments).returncode for arguments in refused_ones] == [1, 1, 1]
    actions = [entry["action"] for entry in server.ok("GET", "/audit?actor=command line&subject=cleo")["items"]]
    assert actions == ["user.delete", *["user.update"] * 3, "user.sessions_end", "user.create"]


def test_keys_are_rotated_while_everybody_stays_signed_in(demo: Demo) -> None:
    server = demo.server
    old = _login(server, "admin").json()["token"]
    assert server.cli("keys", "rotate").returncode == 0
    new = wait_until(
        "The new key",
        lambda: (token := _login(server, "admin").json()["token"]) and _kid(token) != _kid(old) and token,
    )
    for token in (old, new):
        assert _me(server, token).status_code == 200
    keys = {key["kid"]: key["state"] for key in server.ok("GET", "/keys")["items"]}
    assert (keys[_kid(old)], keys[_kid(new)]) == ("verifying", "signing")
    assert f"{_kid(new)}\tsigning" in server.cli("keys", "list").stdout
    refused(server.api("DELETE", f"/keys/{_kid(new)}"), 409, "conflict")
    refused(server.api("DELETE", "/keys/" + "f" * 16), 404, "not_found")
    third = server.ok("POST", "/keys/rotate", json={})["kid"]
    assert server.ok("GET", "/audit?action=key.rotate")["items"][0]["subject"] == third
    assert _me(server, old).status_code == 200


def _kid(token: str) -> str:
    head = token.split(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


def test_a_token_signed_by_someone_else(demo: Demo) -> None:
    token = demo.server.login()
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    later = (
        base64.urlsafe_b64encode(json.dumps({**claims, "exp": claims["exp"] + 9999}).encode())
        .rstrip(b"=")
        .decode()
    )
    assert _me(demo.server, token).status_code == 200
    for forged in (
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{later}.{signature}",
        f"{head}.{body}.",
        token[:-4],
    ):
        refused(_me(demo.server, forged), 401, "unauthenticated")


def test_no_password_and_no_session_is_ever_logged(demo: Demo) -> None:
    token = demo.server.login()
    log = demo.server.log()
    assert PASSWORD not in log
    assert token not in log
    assert token.rsplit(".", 1)[1] not in log
