"""A token is revoked while four workers are under load: how long after the answer is it still let in?

`python -m benchmarks.revocation --tokens 100 --connections 16`

wrk keeps the workers busy with a token of its own. One after the other, each of `--tokens` is used over 16
connections, which all workers have a part of, and revoked through the internal API meanwhile. Of each the last
call that was let in is kept: when it was sent, and when its answer came, both against the answer to the
revocation. It was let in between the two, and earlier than its answer by at least the time that the answer itself
says it took (`timing_ms`); that is what the aim is held to.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import psutil

from benchmarks.harness import load, options, report
from benchmarks.harness.pulvinar import Admin, Installation
from benchmarks.harness.report import at_most
from benchmarks.harness.server import Server
from benchmarks.harness.workload import Call, Workload

WORKERS: Final = 4
PROBES: Final = 16
MOST_MS: Final = 200.0
BEFORE_S: Final = 0.1
AFTER_S: Final = 0.4
TINY: Final = Workload("tiny", "tiny")


class Last(NamedTuple):
    """The last call that was let in, in milliseconds after the answer to the revocation; how many there were."""

    sent_ms: float
    let_in_ms: float
    """At the latest: when the answer came, less the time that the server says it took."""
    answered_ms: float
    accepted: int
    refused: int


def connect_to_all(server: Server) -> list[http.client.HTTPConnection]:
    """Connections of which every worker has some."""
    workers = [one.pid for one in server.processes() if "app.worker" in " ".join(one.cmdline())]
    assert len(workers) == WORKERS, workers
    kept: list[http.client.HTTPConnection] = []
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/health/live")
        connection.getresponse().read()
        kept.append(connection)
        if len(kept) >= PROBES and len(_who_have(kept, workers)) == WORKERS:
            return kept


def _who_have(connections: Sequence[http.client.HTTPConnection], pids: Sequence[int]) -> set[int]:
    ports = {one.sock.getsockname()[1] for one in connections}
    found = {pid: psutil.Process(pid).net_connections("tcp") for pid in pids}
    return {pid for pid, some in found.items() if any(one.raddr and one.raddr.port in ports for one in some)}


def probe(
    connection: http.client.HTTPConnection, call: Call, stop: threading.Event
) -> list[tuple[float, float, float, int]]:
    """Call until told to stop: when each was sent, let in at the latest and answered, and with which status."""
    calls = []
    while not stop.is_set():
        sent = time.monotonic()
        connection.request("POST", call.path, call.body, call.headers)
        answer = connection.getresponse()
        body = answer.read()
        came = time.monotonic()
        took_s = json.loads(body)["timing_ms"]["total"] / 1000 if answer.status == 200 else 0.0
        calls.append((sent, came - took_s, came, answer.status))
    return calls


def revoke(admin: Admin, token_id: int, call: Call, connections: Sequence[http.client.HTTPConnection]) -> Last:
    """Use a token over all connections, and revoke it meanwhile."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(connections)) as threads:
        probing = [threads.submit(probe, connection, call, stop) for connection in connections]
        time.sleep(BEFORE_S)
        admin.revoke_token(token_id)
        answered = time.monotonic()
        time.sleep(AFTER_S)
        stop.set()
        calls = [one for future in probing for one in future.result()]
    statuses = {status for *_, status in calls}
    assert statuses == {200, 401}, f"answers with {sorted(statuses)}"
    let_in = [[moment - answered for moment in moments] for *moments, status in calls if status == 200]
    latest_ms = (max(times) * 1000 for times in zip(*let_in, strict=True))
    return Last(*latest_ms, len(let_in), len(calls) - len(let_in))


def measure(tokens: int, connections: int) -> list[Last]:
    """Revoke so many tokens in turn."""
    node = Installation("revocation")
    node.add_model_for("tiny")
    node.create_token()
    with node.start(None, ["--workers", str(WORKERS)]) as server, Admin(server.port) as admin:
        made = [admin.make_token(f"revoked-{number}") for number in range(tokens)]
        seconds = tokens * (BEFORE_S + AFTER_S) * 2 + 30
        busy = load.Load(server.port, node.call(TINY), connections, seconds, None)
        try:
            probes = connect_to_all(server)
            found = [revoke(admin, id_, node.call(TINY, secret), probes) for id_, secret in made]
        finally:
            busy.kill()
    return found


def at_percent(values: Sequence[float], percent: int) -> float:
    """The value that so many per cent are not above."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", connections="16")
    parser.add_argument("--tokens", type=int, default=100)
    chosen = parser.parse_args(arguments)
    found = measure(chosen.tokens, chosen.connections[0])
    rows = [
        [what, *(f"{at_percent(times, percent):.1f}" for percent in (50, 99, 100))]
        for what, times in (("it was sent", [one.sent_ms for one in found]),
                            ("it was let in, at the latest", [one.let_in_ms for one in found]),
                            ("its answer came", [one.answered_ms for one in found]))
    ]  # fmt: skip
    counts = f"{len(found)} tokens, {WORKERS} workers: {sum(one.accepted for one in found):,} calls let in and "
    counts += f"{sum(one.refused for one in found):,} refused."
    report.save(
        "revocation",
        vars(chosen),
        {"found": [one._asdict() for one in found]},
        [report.table(["last call let in, ms after the answer", "p50", "p99", "latest"], rows), counts],
        [at_most("a revoked token is let in", MOST_MS, max(one.let_in_ms for one in found), " ms")],
    )


if __name__ == "__main__":
    main()
