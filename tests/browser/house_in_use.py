"""A house in use, to be looked at: versions, a canary, a search, a pipeline, applications, people, a busy day."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from app.readings import Tally, total
from core.database.repositories.history import MINUTE_S, History
from core.database.session import Database
from core.database.tables import utc_now
from core.metrics import STAGE_BOUNDS_MS
from tests.browser.served_pages import MODEL
from tests.servers import (
    DEMO_IMAGES,
    DEMO_MODEL,
    DETECTOR,
    ROOT,
    RunningServer,
    demo_package,
    wait_until,
    zip_bytes,
)

DETECTIONS: Final = "detector"
PIPELINE: Final = "objects"
PHOTOS: Final = sorted(DEMO_IMAGES.glob("*.jpg"))
PHOTO: Final = DEMO_IMAGES / "coffee.jpg"
"""What is sent to be shown."""
_SEARCH_S = 25
_GIBIBYTE = 1 << 30


def fill(server: RunningServer) -> str:
    """Fill it by the API, as an administrator would; answers the secret of an application's token."""
    server.upload(DETECTIONS, demo_package(DETECTOR), description="Everyday things, with their boxes")
    server.deploy(DETECTIONS, isolation="process")
    add_samples(server)
    search(server)
    server.upload(MODEL, second_version(), version=True)
    traffic = [{"version": 1, "weight": 90, "mode": "live"}, {"version": 2, "weight": 10, "mode": "live"}]
    accepted = server.ok("PUT", f"/models/{MODEL}/deployment", json={"traffic": traffic})
    server.wait_generation(MODEL, accepted["generation"])
    text = (ROOT / f"demo/pipelines/{PIPELINE}.yaml").read_bytes()
    server.ok("POST", f"/pipelines?name={PIPELINE}", content=text)
    server.ok("PUT", f"/pipelines/{PIPELINE}/deployment", json={"version": 1})
    server.user("ada", "operator")
    server.user("grace", "viewer")
    server.new_token(name="warehouse cameras", models=[DETECTIONS], rate=["50/second"], max_concurrency=8)
    server.new_token(name="nightly report", rate=["100000/day"], ip_allow=["10.0.0.0/8"])
    return server.token(name="shop", models=[MODEL, DETECTIONS], rate=["100/second", "1000000/day"])


def second_version() -> bytes:
    """The classifier with other settings, as a package."""
    files = {name: (DEMO_MODEL / name).read_bytes() for name in ("model.onnx", "labels.txt")}
    manifest = (DEMO_MODEL / "model.yaml").read_text().replace("top_k: 5", "top_k: 3")
    return zip_bytes({**files, "model.yaml": manifest})


def add_samples(server: RunningServer) -> None:
    for photo in PHOTOS:
        files = {"file": (photo.name, photo.read_bytes())}
        assert server.api("POST", f"/models/{MODEL}/samples", files=files).status_code == 201


def search(server: RunningServer) -> None:
    """Search for the best way to run the classifier, and wait for the end."""
    wanted = {"budget_s": _SEARCH_S, "max_accuracy_loss": 1, "apply": False}
    server.ok("POST", f"/models/{MODEL}/versions/1/optimise", json=wanted)

    def ended() -> bool:
        return bool(server.ok("GET", f"/models/{MODEL}/versions/1/trials")["status"] not in ("queued", "running"))

    wait_until("The end of the search", ended, 180, 0.5)


@contextmanager
def callers(server: RunningServer, token: str) -> Iterator[None]:
    """Somebody who calls both models all the time, and now and then with something that is no photo."""
    over = threading.Event()
    photos = [photo.read_bytes() for photo in PHOTOS]

    def call() -> None:
        number = 0
        while not over.wait(0.08):
            number += 1
            model = DETECTIONS if number % 4 == 0 else MODEL
            content = b"no photo" if number % 97 == 0 else photos[number % len(photos)]
            server.infer(model, token, content=content)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def remember_a_day(data_dir: Path) -> None:
    """Write a day of figures, so that charts over a day have something to show."""

    async def write() -> None:
        database = Database(f"sqlite:///{data_dir / 'pulvinar.db'}")
        now = utc_now().replace(second=0, microsecond=0)
        rows = [row for ago in range(2, 24 * 60) for row in _minute(now, ago)]
        async with database.transaction() as session:
            await History(session).write(rows)
        await database.close()

    thread = threading.Thread(target=lambda: asyncio.run(write()))  # in this one Playwright's loop runs
    thread.start()
    thread.join()


def _minute(now: Any, ago: int) -> Iterator[dict[str, Any]]:
    at = now - timedelta(minutes=ago)
    busy = 1 + math.sin((at.hour + at.minute / 60 - 8) / 24 * math.tau)  # hardly anybody at night
    ripple = 1 + 0.06 * math.sin(ago / 7) + 0.05 * math.sin(ago * 1.7)
    tallies = {
        MODEL: _tally(round(420 * busy * ripple) + 12, 5, 9 + round(2 * math.sin(ago / 40))),
        DETECTIONS: _tally(round(160 * busy * ripple) + 9, 7, 6 + round(2 * math.sin(ago / 55))),
    }
    machine = {"memory_bytes": 5 * _GIBIBYTE, "cpu_percent": 30 * busy + 4}
    yield {**_row(at, "", total(tallies.values())), **machine}
    for model, tally in tallies.items():
        yield {**_row(at, model, tally), "memory_bytes": _GIBIBYTE // 4, "cpu_percent": 0.0}


def _tally(requests: int, bucket: int, slow: int) -> Tally:
    """So many requests, most of them in one bucket of the times, `slow` of a hundred in the two after it."""
    spread = [0] * (len(STAGE_BOUNDS_MS) + 1)
    spread[bucket + 1], spread[bucket + 2] = requests * slow // 100, requests * slow // 900
    spread[bucket] = requests - sum(spread)
    return Tally(requests, 0, spread)


def _row(at: Any, model: str, tally: Tally) -> dict[str, Any]:
    counted = {"requests": tally.requests, "errors": tally.errors, "buckets": tally.buckets}
    return {"step_s": MINUTE_S, "at": at, "model": model, "queue_depth": 0, **counted}
