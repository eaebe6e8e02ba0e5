"""`--workers 2` against 1 on two cores, JPEG load from wrk on the same cores: failures, throughput, batches.

`python -m benchmarks.workers --seconds 5 --rounds 3 --connections 16,64`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness import load, options, report
from benchmarks.harness.pulvinar import Admin, Installation, engine_host
from benchmarks.harness.report import at_most
from benchmarks.harness.rounds import Comparison
from benchmarks.harness.workload import Workload, photo

WORKERS = (1, 2)


def _prepare(workers: int) -> Installation:
    """One data directory each, deployed in a host process so that all workers feed one batcher."""
    installation = Installation(f"workers-{workers}")
    model = installation.add_model_for("classify")
    installation.create_token()
    with installation.start(None) as server, Admin(server.port) as admin:
        before = {process.pid for process in server.processes()}
        admin.deploy(model, version=1, isolation="process")
        engine_host(server, before)
    return installation


def measure(
    workload: Workload, connections: Sequence[int], rounds: int, seconds: float
) -> tuple[Comparison, dict[str, Any]]:
    """Interleaved rounds; nothing is pinned. Batch sizes are those of the last round."""
    made = {workers: _prepare(workers) for workers in WORKERS}
    found, batches = Comparison(), {}
    for index in range(rounds):
        for workers, installation in made.items():
            name = f"workers-{workers}"
            print(f"round {index + 1}/{rounds}: {name}", flush=True)
            arguments = ["--workers", str(workers)]
            with installation.start(None, arguments) as server, Admin(server.port) as admin:
                for count in connections:
                    run = load.run(server.port, installation.call(workload), count, seconds, None)
                    found.runs.setdefault((name, workload.name, count), []).append(run)
                batches[name] = admin.deployment("classifier")["observed"]["batch_sizes"]
    return found, batches


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    chosen = options.parser(__doc__ or "", connections="16,64").parse_args(arguments)
    workload = photo(640, 480)
    found, batches = measure(workload, chosen.connections, chosen.rounds, chosen.seconds)
    names = [f"workers-{workers}" for workers in WORKERS]
    failures = sum(run.failures for runs in found.runs.values() for run in runs)
    shared = [
        [name, ", ".join(f"{size}: {count}" for size, count in sizes.items())] for name, sizes in batches.items()
    ]
    tables = [
        report.comparison_table(found, names, workload.name, count, "workers-2") for count in chosen.connections
    ]
    cases = [(workload.name, count) for count in chosen.connections]
    report.save(
        "workers",
        vars(chosen),
        {**found.to_json(), "batch_sizes": batches},
        [*tables, report.table(["batches by size", "items: batches"], shared)],
        [at_most("failed requests", 0, failures, "")],
        report.comparison_chart(found, "HTTP workers on two cores", names, cases),
    )


if __name__ == "__main__":
    main()
