"""A limit of 1,000 a minute, hammered: how many are let in by 4 workers, and by 2 machines that share a Redis?

`python -m benchmarks.limits --calls 3000 --connections 16`

All calls are made within one minute of the clock. Limits are set to fail closed, so that a worker that is starved
of the processor refuses (503) where by default it would let in uncounted.
"""

from __future__ import annotations

import http.client
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.harness import options, report
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import Reach
from benchmarks.harness.server import free_port
from benchmarks.harness.workload import Call, Workload

RATE: Final = 1000
LATEST_S: Final = 20
"""Second of a minute in which a run may still begin."""


class Node(Installation):
    """An installation whose one token is limited. Those of two have the same id, so Redis takes them for one."""

    def __init__(self, name: str, redis_url: str | None = None) -> None:
        super().__init__(name)
        self.redis_url = redis_url

    @property
    def env(self) -> dict[str, str]:
        """What its processes are told."""
        redis = {"PULVINAR_REDIS__URL": self.redis_url, "PULVINAR_REDIS__TIMEOUT_S": "5"} if self.redis_url else {}
        return {**super().env, "PULVINAR_ACCESS__LIMITS_ON_FAILURE": "closed", **redis}

    def prepare(self) -> Call:
        """The model and the token, and a call with it."""
        self.add_model_for("tiny")
        self.token = self.cli("token", "create", "--name", "bench", "--rate", f"{RATE}/minute").split()[-1]
        return self.call(Workload("tiny", "tiny"))


@contextmanager
def redis() -> Iterator[str]:
    """A Redis of this benchmark's own, in memory alone."""
    program, port = shutil.which("redis-server"), free_port()
    if program is None:
        raise SystemExit("there is no redis-server")
    process = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    )
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def hammer(targets: Sequence[tuple[int, Call]], calls: int, connections: int) -> Counter[int]:
    """Make so many calls, a share on each connection, all in one minute of the clock; answers the statuses."""
    wait_for_a_minute()
    minute = time.time() // 60

    def share(number: int) -> Counter[int]:
        port, call = targets[number % len(targets)]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        found: Counter[int] = Counter()
        for _ in range(calls // connections):
            connection.request("POST", call.path, call.body, call.headers)
            answer = connection.getresponse()
            answer.read()
            found[answer.status] += 1
        connection.close()
        return found

    with ThreadPoolExecutor(connections) as threads:
        counted = sum(threads.map(share, range(connections)), Counter[int]())
    if time.time() // 60 != minute:
        raise SystemExit("the calls did not end within a minute: make fewer")
    return counted


def wait_for_a_minute() -> None:
    """Until a minute of the clock has most of itself before it."""
    while time.time() % 60 > LATEST_S:
        time.sleep(0.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", connections="16")
    parser.add_argument("--calls", type=int, default=3000)
    chosen = parser.parse_args(arguments)
    connections = chosen.connections[0]
    found: dict[str, Counter[int]] = {}
    node = Node("limits-workers")
    call = node.prepare()
    with node.start(None, ["--workers", "4"]) as server:
        found["4 workers"] = hammer([(server.port, call)], chosen.calls, connections)
    with redis() as url, ExitStack() as stack:
        nodes = [Node(f"limits-node-{number}", url) for number in (1, 2)]
        made = [(node, node.prepare()) for node in nodes]
        targets = [(stack.enter_context(node.start(None)).port, call) for node, call in made]
        found["2 machines, one Redis"] = hammer(targets, chosen.calls, connections)
    rows = [
        [name, str(chosen.calls), *(str(statuses[code]) for code in (200, 429, 503))]
        for name, statuses in found.items()
    ]
    report.save(
        "limits",
        vars(chosen),
        {"statuses": {name: dict(statuses) for name, statuses in found.items()}},
        [report.table([f"{RATE} a minute", "calls", "let in", "refused (429)", "not counted (503)"], rows)],
        [
            Reach(f"let in by {name}", f"{RATE}, exactly", str(statuses[200]), statuses[200] == RATE)
            for name, statuses in found.items()
        ],
    )


if __name__ == "__main__":
    main()
