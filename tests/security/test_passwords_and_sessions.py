"""Guessing the password of one user from everywhere, and sessions that somebody else may have opened."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.answers import refused
from tests.servers import INTERNAL, PASSWORD, RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    variables = {
        "PULVINAR_ACCESS__USER_FAILURE_RATE": "3/day",
        "PULVINAR_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]',  # so that each guess can come from elsewhere
    }
    with RunningServer(tmp_path_factory.mktemp("guesses"), variables) as server:
        yield server


def _login(server: RunningServer, name: str, password: str, address: str = "198.51.100.1") -> httpx.Response:
    return server.client.post(
        f"{INTERNAL}/auth/login",
        json={"username": name, "password": password},
        headers={"X-Forwarded-For": address, "User-Agent": "guesser"},
    )


@pytest.mark.parametrize("name", ["guessed", "nobody at all"])
def test_a_user_is_locked_after_some_guesses_from_anywhere_and_nobody_learns_who_exists(
    server: RunningServer, name: str
) -> None:
    if name == "guessed":
        server.user(name, "viewer")
        assert _login(server, name, PASSWORD).status_code == 200  # what is right is not counted
    for number in range(3):
        refused(_login(server, name, f"guess {number}", f"198.51.{number}.1"), 401, "unauthenticated")
    answer = _login(server, name, PASSWORD, "203.0.113.9")
    assert "this user" in refused(answer, 429, "limit_exceeded")["message"]
    assert 1 <= int(answer.headers["retry-after"]) <= 2 * 86_400
    assert _login(server, "admin", PASSWORD, "203.0.113.9").status_code == 200


def test_sessions_are_listed_and_ended(server: RunningServer) -> None:
    number = server.user("ada", "viewer")
    one = _login(server, "ada", PASSWORD, "203.0.113.1").json()["token"]
    other = _login(server, "ada", PASSWORD, "203.0.113.2").json()["token"]

    def call(token: str, method: str, path: str) -> httpx.Response:
        return server.client.request(method, f"{INTERNAL}{path}", headers={"X-Auth-Token": token})

    listed = call(one, "GET", "/auth/sessions").json()["items"]
    assert {(entry["address"], entry["user_agent"], entry["current"]) for entry in listed} == {
        ("203.0.113.1", "guesser", True),
        ("203.0.113.2", "guesser", False),
    }
    assert not any("hash" in key or "token" in key for entry in listed for key in entry)
    stranger = next(entry["id"] for entry in listed if not entry["current"])
    # Nobody ends the session of another, nor learns that there is one.
    refused(server.api("DELETE", f"/auth/sessions/{stranger}"), 404, "not_found")
    assert call(one, "DELETE", f"/auth/sessions/{stranger}").status_code == 204
    refused(call(other, "GET", "/auth/me"), 401)
    refused(call(one, "DELETE", f"/auth/sessions/{stranger}"), 404)
    assert len(server.ok("GET", f"/users/{number}/sessions")["items"]) == 1
    refused(call(one, "GET", f"/users/{number}/sessions"), 403)
    assert server.api("DELETE", f"/users/{number}/sessions").status_code == 204
    refused(call(one, "GET", "/auth/me"), 401)
    assert server.ok("GET", "/users")["items"]  # the administrator's own session goes on
    assert server.ok("GET", "/audit?action=user.sessions_end")["items"][0]["detail"] == {"ended": 1}


def test_passwords_that_are_guessed_first_are_refused(server: RunningServer) -> None:
    for password in ("Password123", "12345678", "weak.userweak.user"):
        body = {"name": "weak.user", "password": password}
        refused(server.api("POST", "/users", json=body), 422, "unprocessable")
    made = server.cli("user", "create", "weak.user", "--password-stdin", stdin="qwertyuiop\n")
    assert made.returncode == 1
