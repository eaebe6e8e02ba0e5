from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime, timedelta

import pytest
from starlette.requests import Request

from app.dashboard.compression import LEAST_BYTES, MOST_PADDING, compress, takes_gzip
from app.dashboard.made_once import MadeOnce
from app.dashboard.pages.history import MOST_SERIES, Asked, by_model, of_steps, points_of
from app.readings import Step, Tally
from core.database.repositories.history import Counted
from core.errors import Unavailable
from core.metrics import STAGE_BOUNDS_MS

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SOME = [4, *[0] * len(STAGE_BOUNDS_MS)]


def asking(accepted: str | None) -> Request:
    headers = [] if accepted is None else [(b"accept-encoding", accepted.encode())]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers})


def test_the_models_asked_most_have_lines_and_the_others_one() -> None:
    models = {f"m{number:02}": Tally(100 - number, number, SOME) for number in range(12)}
    step = Step(AT.timestamp(), 5.0, models, 3, 50.0, 7)
    chart = of_steps(Asked("requests", "15m", None), [step])
    series = chart["series"]
    assert isinstance(series, list)
    assert [one["name"] for one in series] == [f"m{number:02}" for number in range(MOST_SERIES)] + ["4 others"]
    assert series[0]["values"] == [20.0]
    assert series[-1]["values"] == [round(sum(100 - number for number in range(8, 12)) / 5, 3)]
    by_errors = of_steps(Asked("errors", "15m", None), [step])["series"]
    assert isinstance(by_errors, list)
    assert by_errors[0] == {"name": "m11", "values": [2.2]}


def test_one_model_alone_has_its_own_latencies() -> None:
    steps = [Step(AT.timestamp() + 5 * i, 5.0, {"a": Tally(4, 0, SOME)} if i else {}, 0, 0.0, 0) for i in range(2)]
    chart = of_steps(Asked("latency", "15m", "a"), steps)
    series = chart["series"]
    assert isinstance(series, list)
    assert series[0] == {"name": "p50", "values": [None, 0.25]}


def test_rows_that_were_not_written_are_empty_points() -> None:
    rows = [
        Counted(AT, "", 9, 0),
        Counted(AT, "a", 6, 0),
        Counted(AT + timedelta(minutes=2), "", 3, 0),
    ]
    times, points = points_of(rows, 60)
    assert [time - times[0] for time in times] == [0, 60, 120]
    assert by_model(False, points, ["a", *"bcdefgh", "i"]) == [
        {"name": "a", "values": [0.1, 0.0, 0.0]},
        *({"name": name, "values": [0.0] * 3} for name in "bcdefgh"),
        {"name": "1 others", "values": [0.05, 0.0, 0.05]},
    ]


def test_an_answer_is_made_once_for_all_who_ask_and_anew_when_something_is_new() -> None:
    made: list[int] = []

    async def make() -> int:
        made.append(len(made))
        await asyncio.sleep(0)
        return made[-1]

    async def fail() -> int:
        raise Unavailable("not now")

    async def run() -> None:
        kept: MadeOnce[int] = MadeOnce(most=2)
        assert await asyncio.gather(*(kept.get("k", 1, make) for _ in range(5))) == [0] * 5
        assert await kept.get("k", 1, make) == 0
        assert await kept.get("k", 2, make) == 1
        for key in ("a", "b"):
            await kept.get(key, 1, make)
        assert await kept.get("k", 2, make) == 4  # it was the oldest, and there is room for two
        with pytest.raises(Unavailable):
            await kept.get("k", 3, fail)
        assert await kept.get("k", 3, make) == 5

    asyncio.run(run())


def test_who_asked_first_may_leave() -> None:
    async def run() -> None:
        kept: MadeOnce[str] = MadeOnce(most=2)
        go = asyncio.Event()

        async def make() -> str:
            await go.wait()
            return "made"

        first = asyncio.ensure_future(kept.get("k", 1, make))
        second = asyncio.ensure_future(kept.get("k", 1, make))
        await asyncio.sleep(0)
        first.cancel()
        go.set()
        assert await second == "made"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [(None, False), ("", False), ("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("*", True)],
)
def test_who_takes_gzip(accepted: str | None, takes: bool) -> None:
    assert takes_gzip(asking(accepted)) is takes


def test_a_page_is_compressed_to_a_length_that_does_not_tell() -> None:
    body = b"<p>secret</p>" * 1000
    made = compress(body)
    answers = [made.response(asking("gzip"), "text/html", {"Cache-Control": "no-store"}, 404) for _ in range(60)]
    assert {gzip.decompress(bytes(one.body)) for one in answers} == {body}
    lengths = {len(one.body) for one in answers}
    assert len(lengths) > 20
    assert max(lengths) - min(lengths) <= MOST_PADDING
    first = answers[0]
    assert (first.status_code, first.headers["content-encoding"], first.headers["vary"]) == (
        404,
        "gzip",
        "Accept-Encoding",
    )
    plain = made.response(asking(None), "text/html", {})
    assert (plain.body, plain.headers.get("content-encoding")) == (body, None)
    assert compress(b"x" * (LEAST_BYTES - 1)).response(asking("gzip"), "text/html", {}).body[:1] == b"x"
