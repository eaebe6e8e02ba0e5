"""The long form: `python -m tests.fuzzing --minutes 30 [parser …]`, each parser in a process of its own; last the
operations of both OpenAPI documents, on a server of their own, which are called `internal API` and `external API`.

Writes what was done to benchmarks/results/fuzzing.json and .md; inputs that failed are kept in `.hypothesis` and
are tried first by the next run. Ends with 1 where a parser failed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
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


def fuzz(name: str, minutes: float, first_seed: int) -> dict[str, Any]:
    """Rounds of examples, each with the next seed, until the time is over."""
    profile = settings(
        max_examples=ROUND,
        deadline=None,
        print_blob=True,
        database=DirectoryBasedExampleDatabase(ROOT / ".hypothesis/fuzz"),
        suppress_health_check=list(HealthCheck),
    )
    seen, began, seed, memory = Seen(), time.monotonic(), first_seed, [0]
    while time.monotonic() - began < minutes * 60:
        profile(property_of(PARSERS[name], seen, seed))()
        seed += 1
        memory.append(psutil.Process().memory_info().rss)
    # The first third warms caches: of the libraries, the allocator and hypothesis itself.
    warm = memory[1 + len(memory) // 3] if len(memory) > 3 else memory[-1]
    return {
        "parser": name,
        "examples": seen.examples,
        "refused": seen.refused,
        "seconds": round(time.monotonic() - began, 1),
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
    called, began, seed, memory = Called(), time.monotonic(), first_seed, [0]
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder)) as server:
        server.upload("scale", onnx_models.scale())
        server.deploy("scale")
        headers = {"X-Auth-Token": server.login()} if name == APIS[0] else {"X-Access-Token": server.token()}
        while time.monotonic() - began < minutes * 60:
            for operation in operations(name.split()[0]):
                call(server, operation, headers, called, profile, seed)
            seed += 1
            memory.append(server.rss_bytes())
    answers = [(status, count) for counts in called.statuses.values() for status, count in counts.items()]
    return {
        "parser": name,
        "examples": sum(count for _, count in answers),
        "refused": sum(count for status, count in answers if status >= 400),
        "seconds": round(time.monotonic() - began, 1),
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


def _page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Fuzzing of the parsers at the door",
        "",
        "Written by `make fuzz`. Growth is that of the resident memory after the first third of the time;",
        "slowest is CPU time of one input. Each parser ran in a process of its own.",
        "",
        "| parser | inputs | refused | seconds | slowest, ms | growth, MiB | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.get(key, "") for key in ("examples", "refused", "seconds", "slowest_ms", "growth_mib")]
        lines.append(f"| {row['parser']} | " + " | ".join(map(str, cells)) + f" | {row['failed'] or 'ok'} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what the arguments say."""
    reader = argparse.ArgumentParser(description="Fuzz the parsers at the door.")
    reader.add_argument("parsers", nargs="*", help="some of: " + ", ".join((*PARSERS, *APIS)))
    reader.add_argument("--minutes", type=float, default=30, help="for each parser")
    reader.add_argument("--seed", type=int, default=random.randrange(2**30))
    reader.add_argument("--only", help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.only:
        fuzzed = fuzz_api if asked.only in APIS else fuzz
        print(json.dumps(fuzzed(asked.only, asked.minutes, asked.seed)))
        return 0
    rows = []
    for name in asked.parsers or (*PARSERS, *APIS):
        rows.append(_in_a_process(name, asked.minutes, asked.seed))
        print(json.dumps(rows[-1]), flush=True)
        if not asked.parsers:
            (RESULTS / "fuzzing.json").write_text(json.dumps(rows, indent=1) + "\n")
            (RESULTS / "fuzzing.md").write_text(_page(rows))
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
