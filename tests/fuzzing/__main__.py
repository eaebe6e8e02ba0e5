"""The long form: `python -m tests.fuzzing --minutes 30 [parser …]`, legs in processes of their own; last the
operations of both OpenAPI documents, on a server of their own, which are called `internal API` and `external API`.

Minutes are those of a processor, so that a busy machine does not make a short leg look long. Each leg is added to
benchmarks/results/fuzzing.json, and the next run goes on from there, until every parser has had its minutes;
`--afresh` forgets the legs before. Inputs that failed are kept in `.hypothesis` and are tried first by the next
run. Ends with 1 where a parser failed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzzing.checking import Seen, property_of
from tests.fuzzing.parsers import PARSERS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
ROUND = 200
APIS = ("internal API", "external API")
LEG_MINUTES = 10
"""The most of one leg: what an interruption loses, and long enough for growth to show."""


def fuzz(name: str, minutes: float, first_seed: int) -> dict[str, Any]:
    """Rounds of examples, each with the next seed, until the time is over."""
    profile = settings(
        max_examples=ROUND,
        deadline=None,
        print_blob=True,
        database=DirectoryBasedExampleDatabase(ROOT / ".hypothesis/fuzz"),
        suppress_health_check=list(HealthCheck),
    )
    seen, began, seed, memory = Seen(), time.process_time(), first_seed, [0]
    while time.process_time() - began < minutes * 60:
        profile(property_of(PARSERS[name], seen, seed))()
        seed += 1
        memory.append(psutil.Process().memory_info().rss)
    # The first third warms caches: of the libraries, the allocator and hypothesis itself.
    warm = memory[1 + len(memory) // 3] if len(memory) > 3 else memory[-1]
    return {
        "parser": name,
        "examples": seen.examples,
        "refused": seen.refused,
        "cpu_s": round(time.process_time() - began, 1),
        "slowest_ms": round(seen.slowest_s * 1000, 1),
        "growth_mib": round((memory[-1] - warm) / 2**20, 1),
        "seeds": [first_seed, seed - 1],
        "failed": "",
    }


def fuzz_api(name: str, minutes: float, first_seed: int) -> dict[str, Any]:
    """Rounds of calls of every operation of one document, each with the next seed, until the time is over."""
    from tests.acceptance import onnx_models
    from tests.fuzzing.operations import Called, call, operations
    from tests.servers import RunningServer

    profile = settings(
        max_examples=20, deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck)
    )
    called, seed, memory, spent_s = Called(), first_seed, [0], 0.0
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder)) as server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale")
        headers = {"X-Auth-Token": server.login()} if name == APIS[0] else {"X-Access-Token": server.token()}
        began = server.cpu_s() + time.process_time()
        while spent_s < minutes * 60:
            for operation in operations(name.split()[0]):
                call(server, operation, headers, called, profile, seed)
            seed += 1
            memory.append(server.rss_bytes())
            spent_s = server.cpu_s() + time.process_time() - began
    answers = [(status, count) for counts in called.statuses.values() for status, count in counts.items()]
    return {
        "parser": name,
        "examples": sum(count for _, count in answers),
        "refused": sum(count for status, count in answers if status >= 400),
        "cpu_s": round(spent_s, 1),
        "growth_mib": round((memory[-1] - memory[1 + len(memory) // 3]) / 2**20, 1) if len(memory) > 3 else 0.0,
        "seeds": [first_seed, seed - 1],
        "failed": "",
    }


def _in_a_process(name: str, minutes: float, seed: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "tests.fuzzing",
        "--only",
        name,
        "--minutes",
        str(minutes),
        "--seed",
        str(seed),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return found
    print(ended.stderr, file=sys.stderr, flush=True)
    last = (ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"])[-1]
    return {"parser": name, "failed": f"{last} (status {ended.returncode})", "seeds": [seed, seed]}


def _page(legs: list[dict[str, Any]]) -> str:
    lines = [
        "# Fuzzing of the parsers at the door",
        "",
        "Written by `make fuzz`. Minutes are those of a processor, in legs of at most "
        f"{LEG_MINUTES}, each a process of its own.",
        "Growth is that of the resident memory after the first third of a leg, the most of any;",
        "slowest is CPU time of one input.",
        "",
        "| parser | minutes | legs | inputs | refused | slowest, ms | growth, MiB | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in (*PARSERS, *APIS):
        own = [leg for leg in legs if leg["parser"] == name]
        if own:
            lines.append(_row(name, own))
    return "\n".join(lines) + "\n"


def _row(name: str, legs: list[dict[str, Any]]) -> str:
    def of(key: str) -> list[float]:
        return [leg.get(key, 0) for leg in legs]

    failed = "; ".join(leg["failed"] for leg in legs if leg["failed"])
    slowest = max(of("slowest_ms")) or "-"
    cells = [round(sum(of("cpu_s")) / 60, 1), len(legs), sum(of("examples")), sum(of("refused")), slowest]
    return f"| {name} | " + " | ".join(map(str, [*cells, max(of("growth_mib")), failed or "ok"])) + " |"


def _legs_to_go(names: tuple[str, ...], legs: list[dict[str, Any]], minutes: float) -> list[tuple[str, float]]:
    """What is still missing, as legs; every parser's first one before any parser's second."""
    togo = []
    for name in names:
        missing = minutes - sum(leg.get("cpu_s", 0) for leg in legs if leg["parser"] == name) / 60
        turn = 0
        while missing > 0.01:
            togo.append((turn, name, min(missing, LEG_MINUTES)))
            missing -= LEG_MINUTES
            turn += 1
    return [(name, length) for _, name, length in sorted(togo, key=lambda leg: leg[0])]


def _run_legs(names: tuple[str, ...], minutes: float, seed: int, at_once: int, *, afresh: bool) -> bool:
    """Run what is missing, adding each leg to the results as it ends; whether none of them failed."""
    record, page, lock = RESULTS / "fuzzing.json", RESULTS / "fuzzing.md", threading.Lock()
    legs: list[dict[str, Any]] = [] if afresh or not record.exists() else json.loads(record.read_text())

    def run(number: int, asked: tuple[str, float]) -> bool:
        name, length = asked
        leg = _in_a_process(name, length, seed + number * 100_000)
        with lock:
            legs.append(leg)
            print(json.dumps(leg), flush=True)
            record.write_text(json.dumps(legs, indent=1) + "\n")
            page.write_text(_page(legs))
        return not leg["failed"]

    togo = _legs_to_go(names, legs, minutes)
    with ThreadPoolExecutor(at_once) as pool:
        return all(list(pool.map(run, range(len(togo)), togo)))


def main() -> int:
    """Run what the arguments say."""
    reader = argparse.ArgumentParser(description="Fuzz the parsers at the door.")
    reader.add_argument("parsers", nargs="*", help="some of: " + ", ".join((*PARSERS, *APIS)))
    reader.add_argument("--minutes", type=float, default=30, help="of a processor, for each parser")
    reader.add_argument("--seed", type=int, default=random.randrange(2**30))
    reader.add_argument("--at-once", type=int, default=1, help="legs beside each other")
    reader.add_argument("--afresh", action="store_true", help="forget the legs that are on record")
    reader.add_argument("--only", help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.only:
        fuzzed = fuzz_api if asked.only in APIS else fuzz
        print(json.dumps(fuzzed(asked.only, asked.minutes, asked.seed)))
        return 0
    names = tuple(asked.parsers) or (*PARSERS, *APIS)
    return int(not _run_legs(names, asked.minutes, asked.seed, asked.at_once, afresh=asked.afresh))


if __name__ == "__main__":
    sys.exit(main())
