from __future__ import annotations

import asyncio
import re
import shutil
import time
from pathlib import Path

import orjson
import pytest

from app.dashboard.live import Live
from app.dashboard.pages.history import Asked, of_steps
from app.dashboard.pages.overview import LIVE, _edition
from app.state import Platform
from core.database.repositories.models import Models
from core.database.repositories.versions import Versions
from core.errors import Unavailable
from tests.integration.dashboard.conftest import Browser, House, open_house


def test_an_empty_house_leads_to_the_first_prediction(tmp_path: Path) -> None:
    async def add(status: str) -> None:
        async with empty.platform.database.transaction() as session:
            model = await Models(session).add(f"cats-{status}", "tensor")
            told = {"format": "onnx", "size_bytes": 1, "sha256": "5" * 64, "manifest": {}}
            version = await Versions(session).add_next(model.id, **told)
            await Versions(session).finish(version.id, status, report=[], signature=None)

    def done(page: str) -> list[str]:
        return re.findall(r"<strong>([^<]+)</strong><span class=\"visually-hidden\"> \(done\)", page)

    with open_house(tmp_path) as empty:
        admin = empty.browser()
        admin.sign_in()
        page = admin.get("/dashboard/").text
        assert "0 of 5 done" in page
        empty.run(add, "invalid")
        part = admin.get("/dashboard/overview/first-steps").text
        assert "<html" not in part
        assert done(part) == ["Upload a model"]
        assert 'href="/dashboard/models/cats-invalid/versions/1"' in part
        empty.run(add, "valid")
        empty.platform.traffic["cats-valid"].requests += 1
        part = admin.get("/dashboard/overview/first-steps").text
        assert done(part) == ["Upload a model", "Read its report", "Get the first prediction"]
        assert 'href="/dashboard/models/cats-valid/deployment"' in part
    for tile in ("rate", "p50", "errors", "queue", "cpu", "memory"):
        assert f'data-tile="{tile}"' in page


def test_parts_are_the_same_as_in_the_page(admin: Browser) -> None:
    part = admin.get("/dashboard/overview/parts", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    assert "Machine" in part


@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard/system"])
def test_what_is_free_of_the_disk_is_free_for_the_server(house: House, admin: Browser, path: str) -> None:
    """A file system may keep a part of itself for others, and a quota the rest: it is not what is not used."""
    shown, unit = re.findall(r"([\d.]+)\s(MiB|GiB|TiB) free of", admin.get(path).text)[0]
    free = shutil.disk_usage(house.platform.settings.data_dir).free
    assert float(shown) * 1024 ** {"MiB": 2, "GiB": 3, "TiB": 4}[unit] == pytest.approx(free, rel=0.05)


@pytest.mark.parametrize("kind", ["requests", "errors", "latency", "queue", "cpu", "memory"])
@pytest.mark.parametrize("span", ["15m", "day", "month"])
def test_charts_have_their_figures(admin: Browser, kind: str, span: str) -> None:
    body = admin.get(f"/dashboard/history/{kind}?span={span}").json()
    assert set(body) == {"times", "series"}
    for one in body["series"]:
        assert len(one["values"]) == len(body["times"])


def test_pages_are_compressed_for_whoever_takes_that(admin: Browser) -> None:
    plain = admin.get("/dashboard/", headers={"Accept-Encoding": "identity"})
    packed = admin.get("/dashboard/", headers={"Accept-Encoding": "gzip"})
    assert (plain.headers.get("content-encoding"), packed.headers["content-encoding"]) == (None, "gzip")
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert "Accept-Encoding" in plain.headers["vary"]
    assert "</html>" in packed.text


def test_an_unknown_chart_is_not_there(admin: Browser) -> None:
    assert admin.get("/dashboard/history/secrets").status_code == 404


def test_one_computation_serves_all_who_watch_and_ends_with_the_last(house: House) -> None:
    async def watch() -> None:
        live = Live(_edition)
        streams = [live.events(house.platform) for _ in range(3)]
        assert [await anext(one) for one in streams] == [b"retry: 3000\n\n"] * 3
        events = await asyncio.gather(*(anext(one) for one in streams))
        assert events[0] == events[1] == events[2]
        assert events[0].startswith(b'data: {"at":')
        task = live._task
        for one in streams:
            await one.aclose()
        assert task is not None
        assert live._task is None
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    house.run(watch)


def test_figures_go_on_where_nobody_can_say_whether_the_rest_is_another(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.dashboard.live.EDITION_S", 0.01)
    monkeypatch.setattr("app.dashboard.live.EVERY_S", 0.01)
    ways = [_fails, _hangs, _edition, _hangs]

    async def told(platform: Platform) -> str:
        return await (ways.pop(0) if ways else _hangs)(platform)

    async def watch() -> None:
        stream = Live(told).events(house.platform)
        await anext(stream)
        said = [orjson.loads((await anext(stream)).removeprefix(b"data: "))["parts"] for _ in range(4)]
        await stream.aclose()
        edition = await _edition(house.platform)
        assert said == ["", "", edition, edition]

    house.run(watch)


def test_figures_go_on_after_an_error_that_nobody_expects(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.dashboard.live.EVERY_S", 0.01)
    ways = [_crashes, _edition]

    async def told(platform: Platform) -> str:
        return await (ways.pop(0) if ways else _edition)(platform)

    async def watch() -> None:
        stream = Live(told).events(house.platform)
        await anext(stream)
        async with asyncio.timeout(30):
            assert (await anext(stream)).startswith(b"data: ")
        await stream.aclose()

    house.run(watch)


def test_whoever_watches_is_let_go_at_a_stop_though_figures_fail(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.dashboard.live.EVERY_S", 0.01)

    async def watch() -> None:
        stream = Live(_crashes).events(house.platform)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        monkeypatch.setattr(house.platform, "leaving", True)
        async with asyncio.timeout(30):
            assert (await waiting).startswith(b":")
            assert [event async for event in stream] == []

    house.run(watch)


async def _crashes(_: Platform) -> str:
    raise ZeroDivisionError("a bug")


async def _fails(_: Platform) -> str:
    raise Unavailable("The database does not answer.")


async def _hangs(_: Platform) -> str:
    return await asyncio.Future[str]()


def test_a_step_is_told_once_and_as_its_chart_would_show_it(house: House) -> None:
    async def watch() -> None:
        await house.platform.recorder.look()
        await house.platform.recorder.look()
        live = Live(_edition)
        first, second = await live._figures(house.platform), await live._figures(house.platform)
        step = house.platform.recorder.steps[-1]
        chart = of_steps(Asked("latency", "15m", None), [step])
        assert second.point is None
        assert first.point is not None
        assert [first.point.at] == chart["times"]
        assert [{"name": name, "values": [ms]} for name, ms in first.point.latency.items()] == chart["series"]

    house.run(watch)


def test_there_are_only_so_many_listeners(house: House, admin: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.dashboard.live.MAX_LISTENERS", 0)
    answer = admin.get("/dashboard/live")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "30"
    assert LIVE._listeners == 0


def test_a_hostile_name_is_only_text(house: House, admin: Browser) -> None:
    """A name that no check of today lets through: pages must not rely on those."""

    async def plant() -> None:
        async with house.platform.database.transaction() as session:
            await Models(session).add("<script>alert(1)</script>", "tensor")

    async def remove() -> None:
        async with house.platform.database.transaction() as session:
            model = await Models(session).by_name("<script>alert(1)</script>")
            assert model is not None
            await Models(session).delete(model)

    house.run(plant)
    try:
        text = admin.get("/dashboard/search?q=alert").text
    finally:
        house.run(remove)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert" not in text


def test_the_page_takes_no_long_time_to_write(admin: Browser) -> None:
    """Not in seconds, which depend on who else computes here: against the smallest page there is."""

    def fastest(path: str) -> float:
        times = []
        for _ in range(5):
            began = time.process_time()
            assert admin.get(path).status_code == 200
            times.append(time.process_time() - began)
        return min(times)

    assert fastest("/dashboard/") < 20 * fastest("/dashboard/search")
