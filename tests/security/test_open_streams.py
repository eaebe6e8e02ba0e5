"""What is still open when its user may not see it any more."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import PASSWORD, PLAIN, RunningServer, wait_until

OURS = {"Sec-Fetch-Site": "same-origin"}
NAME, WORDS = "watcher", "battery horse staple"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("streams")) as server:
        yield server


@pytest.fixture
def user_id(server: RunningServer) -> Iterator[int]:
    made = server.ok("POST", "/users", json={"name": NAME, "password": WORDS, "role": "operator"})
    yield made["id"]
    server.ok("DELETE", f"/users/{made['id']}")


@pytest.fixture
def browser(server: RunningServer, user_id: int) -> Iterator[httpx.Client]:
    base = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=base, timeout=60, headers=OURS, **PLAIN) as browser:
        form = {"name": NAME, "password": WORDS, "next": "/dashboard/", "csrf": _token(browser.get("/login"))}
        assert browser.post("/login", data=form).status_code == 303
        yield browser


def test_a_stop_does_not_wait_for_whoever_watches(tmp_path: Path) -> None:
    """It would wait for the whole drain time, and then be reported as a failure."""
    with RunningServer(tmp_path, {"PULVINAR_SERVER__DRAIN_S": "60"}) as server:
        base = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=base, timeout=60, headers=OURS, **PLAIN) as browser:
            form = {
                "name": "admin",
                "password": PASSWORD,
                "next": "/dashboard/",
                "csrf": _token(browser.get("/login")),
            }
            assert browser.post("/login", data=form).status_code == 303
            with browser.stream("GET", "/dashboard/live") as answer:
                lines = answer.iter_lines()
                while not next(lines).startswith("data:"):
                    pass
                began = time.monotonic()
                server.terminate()
                said = list(lines)
            assert time.monotonic() - began < 30
            assert said[-2:] == [": the server stops", ""]


def _token(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert found is not None
    return found[1]


def _sign_out(browser: httpx.Client, server: RunningServer, user_id: int) -> None:
    token = _token(browser.get("/dashboard/account"))
    assert browser.post("/dashboard/sign-out", data={"csrf": token}).status_code == 303


def _disable(browser: httpx.Client, server: RunningServer, user_id: int) -> None:
    server.ok("PATCH", f"/users/{user_id}", json={"disabled": True})


def _demote(browser: httpx.Client, server: RunningServer, user_id: int) -> None:
    server.ok("PATCH", f"/users/{user_id}", json={"role": "viewer"})


@pytest.mark.parametrize("change", [_sign_out, _disable, _demote])
def test_figures_end_soon_after_the_right_to_see_them(
    server: RunningServer,
    browser: httpx.Client,
    user_id: int,
    change: Callable[[httpx.Client, RunningServer, int], None],
) -> None:
    events, ended = [0], threading.Event()

    def watch() -> None:
        headers = {"Accept": "text/event-stream"}
        with browser.stream("GET", "/dashboard/live", headers=headers) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                events[0] += line.startswith("data:")
        ended.set()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    wait_until("That figures last while they may be seen", lambda: events[0] > 3)
    assert not ended.is_set()
    change(browser, server, user_id)
    assert ended.wait(30)
    watching.join()
