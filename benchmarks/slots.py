"""Slots that follow the load against fixed settings, on all cores: one caller, and many.

Fixed settings are one slot with all the threads, and a slot a core with one thread each. All three are in service,
and one is called at a time; each round begins with another of them.

`python -m benchmarks.slots --seconds 2 --rounds 9 --connections 1,16`
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks import models
from benchmarks.harness import load, options, report
from benchmarks.harness.pulvinar import Admin, Installation
from benchmarks.harness.report import at_least
from benchmarks.harness.rounds import Comparison
from benchmarks.harness.workload import photo

CORES = len(os.sched_getaffinity(0))
SETTINGS: dict[str, dict[str, Any]] = {
    "following": {},
    "fixed-one": {"instances": 1, "max_instances": 1},
    "fixed-a-core": {"instances": CORES, "max_instances": CORES},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    made = options.parser(__doc__ or "", seconds=2, rounds=9, connections="1,16")
    chosen = made.parse_args(arguments)
    workload, found, names = photo(640, 480), Comparison(), list(SETTINGS)
    installation = Installation("slots")
    for name in names:
        installation.add_model(name, models.classifier_package())
    installation.create_token()
    calls = {name: replace(installation.call(workload), path=f"/api/v1/inference/{name}") for name in names}
    with installation.start(None) as server, Admin(server.port) as admin:
        for name, spec in SETTINGS.items():
            admin.deploy(name, version=1, **spec)
            load.run(server.port, calls[name], max(chosen.connections), 1, None)
        for index in range(chosen.rounds):
            print(f"round {index + 1}/{chosen.rounds}", flush=True)
            first = index % len(names)
            for count in chosen.connections:
                for name in names[first:] + names[:first]:
                    run = load.run(server.port, calls[name], count, chosen.seconds, None)
                    found.runs.setdefault((name, workload.name, count), []).append(run)
    aims = [
        at_least(f"{count} connections, over {name}", 0.95, found.ratio("following", name, workload.name, count))
        for count in chosen.connections
        for name in names[1:]
    ]
    cases = [(workload.name, count) for count in chosen.connections]
    report.save(
        "slots",
        vars(chosen),
        found.to_json(),
        [report.comparison_table(found, names, work, count, "following") for work, count in cases],
        aims,
        report.comparison_chart(found, "Slots that follow the load", names, cases),
    )


if __name__ == "__main__":
    main()
