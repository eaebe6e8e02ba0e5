"""The dashboard of a large house: 500 models in service, 1,000 tokens, 30 days of history.

`python -m benchmarks.dashboard --models 500 --tokens 1000 --asks 60`

Every model was asked something in every minute of the last day and every hour of the last 30 days: as many rows of
history as there can be. Each page is asked for over one connection, one request after the other, as a browser asks
that takes gzip and Brotli; `weight` is what comes over the wire when nothing is in the browser's cache: the page,
its files and the figures of its charts.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin

import httpx
from sqlalchemy import Connection, Table, create_engine, insert, select

from benchmarks.harness import options, report
from benchmarks.harness.client import percentile
from benchmarks.harness.machine import server_core
from benchmarks.harness.pulvinar import PASSWORD, Installation
from benchmarks.harness.report import at_most
from benchmarks.harness.server import Server
from benchmarks.many_models_and_tokens import fill
from core.database.tables import Deployment, HistoryRow, Model
from core.metrics import STAGE_BOUNDS_MS

MOST_MS, MOST_BYTES = 100.0, 400_000
ASKED = (sys.executable, "-m", "benchmarks.peers.long_running")
CHUNK = 20_000
PAGES = {
    "overview": "/dashboard/",
    "overview, the part that is asked for again": "/dashboard/overview/parts",
    "models": "/dashboard/models",
    "a model": "/dashboard/models/model-00007",
    "tokens": "/dashboard/access/tokens",
    "audit log": "/dashboard/access/audit",
    "machine": "/dashboard/system",
}
CHARTS = {
    f"chart of {kind}, {span}": f"/dashboard/history/{kind}?span={span}"
    for kind in ("requests", "latency")
    for span in ("15m", "day", "month")
}
_LINK = re.compile(r'(?:href|src|data-chart)="(/(?:static|dashboard/history)/[^"]+)"')


@dataclass
class Asked:
    """One page: times in milliseconds, the first of all and of those that came after; bytes over the wire."""

    page: str
    first_ms: float
    p50_ms: float
    p99_ms: float
    bytes: int
    weight: int


def prepare(models: int, tokens: int, days: int) -> Installation:
    """A house in which so much has happened."""
    made = Installation("large-house")
    made.add_model_for("tiny")
    made.create_token()
    fill(made, models, tokens)
    engine = create_engine(f"sqlite:///{made.data_dir / 'pulvinar.db'}")
    try:
        with engine.begin() as connection:
            names = _deploy(connection)
            for rows in _history([*names, ""], days):
                connection.execute(insert(HistoryRow), rows)
    finally:
        engine.dispose()
    return made


def _deploy(connection: Connection) -> list[str]:
    """Every model is in service, as the first one is."""
    template = connection.execute(select(Deployment.__table__).limit(1)).mappings().one()
    kept = {key: value for key, value in template.items() if key != "model_id"}
    table: Table = Model.__table__  # type: ignore[assignment]
    found = connection.execute(select(table.c.id, table.c.name).where(table.c.name.like("model-%"))).all()
    connection.execute(insert(Deployment), [{**kept, "model_id": one.id} for one in found])
    return [one.name for one in found]


def _history(names: Sequence[str], days: int) -> Iterator[list[dict[str, Any]]]:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    buckets = [0] * (len(STAGE_BOUNDS_MS) + 1)
    buckets[3] = 100
    rows: list[dict[str, Any]] = []
    for step, count, last in (
        (timedelta(minutes=1), 24 * 60 - 1, now - timedelta(minutes=1)),
        (timedelta(hours=1), days * 24 - 1, now.replace(minute=0) - timedelta(hours=1)),
    ):
        for back in range(count):
            for number, name in enumerate(names):
                said = {"step_s": step.seconds, "at": last - back * step, "model": name, "requests": 100 + number}
                more = {"errors": 1, "buckets": buckets, "queue_depth": 0, "cpu_percent": 20.0, "memory_bytes": 0}
                rows.append({**said, **more})
            if len(rows) > CHUNK:
                yield rows
                rows = []
    yield rows


def sign_in(server: Server) -> httpx.Client:
    """A browser's session, without a browser."""
    address = f"http://127.0.0.1:{server.port}"
    client = httpx.Client(base_url=address, timeout=60, headers={"Accept-Encoding": "br, gzip"}, trust_env=False)
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get("/login").text)
    form = {"csrf": found[1] if found else "", "name": "admin", "password": PASSWORD, "next": "/dashboard/"}
    answer = client.post("/login", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303, answer.text[:300]
    return client


def ask(client: httpx.Client, name: str, path: str, asks: int) -> Asked:
    """Ask for one page again and again."""
    times, text, size = [], "", 0
    for _ in range(asks):
        began = time.perf_counter()
        with client.stream("GET", path) as answer:
            text = answer.read().decode()
        times.append((time.perf_counter() - began) * 1e3)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {text[:200]}"
        size = answer.num_bytes_downloaded
    later = times[1:] or times
    p50_ms, p99_ms = percentile(later, 50) or 0, percentile(later, 99) or 0
    return Asked(name, times[0], p50_ms, p99_ms, size, size + _beside(client, text))


def _beside(client: httpx.Client, text: str) -> int:
    """The bytes of all that a page loads."""
    size = 0
    for link in {urljoin("/", one.replace("&amp;", "&").partition("#")[0]) for one in _LINK.findall(text)}:
        with client.stream("GET", link) as answer:
            answer.read()
        size += answer.num_bytes_downloaded
    return size


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "")
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--asks", type=int, default=60)
    chosen = parser.parse_args(arguments)
    house = prepare(chosen.models, chosen.tokens, chosen.days)
    house.more_env["BENCH_STEPS"] = f"{chosen.models},20"
    with house.start([server_core()], program=ASKED, ready_timeout_s=300) as server:
        client = sign_in(server)
        found = [ask(client, name, path, chosen.asks) for name, path in {**PAGES, **CHARTS}.items()]
        client.close()
    rows = []
    for one in found:
        times = [f"{ms:.1f}" for ms in (one.first_ms, one.p50_ms, one.p99_ms)]
        rows.append([one.page, *times, f"{one.bytes:,}", f"{one.weight:,}"])
    head = ["page", "first ms", "p50 ms", "p99 ms", "bytes", "weight"]
    overview = found[0]
    reaches = [
        at_most("overview, p99", MOST_MS, overview.p99_ms, " ms"),
        at_most("overview, weight", MOST_BYTES / 1000, overview.weight / 1000, " kB"),
    ]
    body = {"pages": [asdict(one) for one in found]}
    report.save("dashboard", vars(chosen), body, [report.table(head, rows)], reaches)


if __name__ == "__main__":
    main()
