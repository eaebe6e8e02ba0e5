"""Slots that follow the load against fixed settings, on all cores: one caller, and many.

Fixed settings are one slot with all the threads, and a slot a core with one thread each.

`python -m benchmarks.slots --seconds 5 --rounds 3 --connections 1,16`
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

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
    chosen = options.parser(__doc__ or "", connections="1,16").parse_args(arguments)
    workload, found = photo(640, 480), Comparison()
    installation = Installation("slots")
    model = installation.add_model_for("classify")
    installation.create_token()
    call = installation.call(workload)
    with installation.start(None) as server, Admin(server.port) as admin:
        for index in range(chosen.rounds):
            for name, spec in SETTINGS.items():
                print(f"round {index + 1}/{chosen.rounds}: {name}", flush=True)
                admin.deploy(model, version=1, **spec)
                for count in chosen.connections:
                    run = load.run(server.port, call, count, chosen.seconds, None)
                    found.runs.setdefault((name, workload.name, count), []).append(run)
    names = list(SETTINGS)
    aims = [
        at_least(f"{count} connections, over {name}", 1.0, found.ratio("following", name, workload.name, count))
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
