"""Runs every benchmark in turn, goes on after one that fails, and writes the tables into the docs.

`python -m benchmarks`, or with names: `python -m benchmarks tiny_tensor overload`; `--short` only shows that
they run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.harness import document
from benchmarks.harness.places import ROOT

BENCHMARKS = (
    "tiny_tensor",
    "image_classification",
    "hot_swap",
    "crash",
    "overload",
    "many_models_and_tokens",
    "door_cost",
    "limits",
    "revocation",
    "workers",
    "pipeline",
    "slots",
    "hot_path",
    "memory_budget",
    "load_cycles",
    "optimiser",
    "detector",
    "speech",
    "text_embedding",
    "streams",
    "cached_embedding",
    "dashboard",
    "watched",
    "observed",
)
SHORT = ("--seconds", "2", "--rounds", "1", "--no-save")


def main(arguments: Sequence[str] | None = None) -> int:
    """Each in a process of its own; the status is that of the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(BENCHMARKS)}; all without any")
    parser.add_argument("--short", action="store_true", help="two seconds each, nothing kept")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    failed = []
    for name in chosen.names or BENCHMARKS:
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", *(SHORT if chosen.short else ())]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
        print(f"=== {name}: {time.monotonic() - began:.0f} s", flush=True)
    if not chosen.short:
        document.refresh()
    if failed:
        print(f"Failed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
