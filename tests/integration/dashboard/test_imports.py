"""Fetching models from a hub, by the pages alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from core.database.tables import Import, utc_now
from tests.integration.dashboard.conftest import Browser, House
from tests.integration.dashboard.test_access import HOSTILE
from tests.integration.dashboard.test_second_factor import somebody

PATH = "/dashboard/models/-/imports"


def test_what_comes_is_watched_and_ended(house: House, admin: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Nothing was fetched yet" in admin.get(PATH).text
    assert f'href="{PATH}"' in admin.get("/dashboard/models/-/new").text
    admin.get(PATH)
    answer = admin.post(PATH, {"source": HOSTILE, "name": "cats"})
    assert answer.status_code in (400, 403, 422)
    assert 'role="alert"' in answer.text
    assert "<script>alert" not in answer.text
    row = Import(
        source="hf:acme/cats",
        model="cats",
        state="running",
        done_bytes=1 << 20,
        total_bytes=4 << 20,
        claimed_until=utc_now() + timedelta(hours=1),
    )

    async def add() -> int:
        async with house.platform.database.transaction() as session:
            session.add(row)
            await session.flush()
            return row.id

    started: list[Any] = []

    async def start(*said: Any) -> Import:
        started.append(said)
        return row

    async def cancel(number: int, _: Any) -> Import:
        started.append(number)
        return row

    monkeypatch.setattr(house.platform.imports, "start", start)
    monkeypatch.setattr(house.platform.imports, "cancel", cancel)
    number = house.run(add)
    admin.get(PATH)
    assert admin.post(PATH, {"source": "hf:acme/cats", "name": "cats"}).headers["location"] == PATH
    assert started[0][:2] == ("hf:acme/cats", "cats")
    page = admin.get(PATH).text
    assert "hf:acme/cats" in page
    assert f"{PATH}/{number}/cancel" in page
    part = admin.get(PATH, headers={"HX-Request": "true"}).text
    assert "<html" not in part
    admin.get(PATH)
    assert admin.post(f"{PATH}/{number}/cancel").status_code == 303
    assert started[-1] == number


def test_viewers_look_only(house: House) -> None:
    viewer = somebody(house, "watcher")
    page = viewer.get(PATH).text
    assert "Fetch and check" not in page
    assert viewer.post(PATH, {"source": "hf:acme/cats", "name": "cats"}).status_code == 403
