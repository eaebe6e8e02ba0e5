"""10,000 registered models and 100,000 tokens against one of each: throughput, and the time to start.

`python -m benchmarks.many_models_and_tokens --models 10000 --tokens 100000`
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, create_engine, insert, select, update

from benchmarks.harness import load, options, report
from benchmarks.harness.machine import load_core, server_core
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import at_least, at_most
from benchmarks.harness.rounds import Comparison
from benchmarks.harness.workload import TINY, Call
from core.database.tables import AccessToken, Model, Revision, Version

THROUGHPUT, START_S = 0.95, 5.0
USED = 1000
"""Tokens that the load uses in turn."""
CHUNK = 5000


def fill(installation: Installation, models: int, tokens: int) -> list[str]:
    """Write models (one version each, not deployed) and tokens straight into the database; returns the secrets."""
    made = [f"pv_{secrets.token_urlsafe(32)}" for _ in range(tokens)]
    engine = create_engine(f"sqlite:///{installation.data_dir / 'pulvinar.db'}")
    try:
        with engine.begin() as connection:
            _models(connection, models)
            _tokens(connection, made)
    finally:
        engine.dispose()
    return made


def _models(connection: Connection, count: int) -> None:
    table: Table = Model.__table__  # type: ignore[assignment]
    rows = [{"name": f"model-{index:05d}", "task": "tensor", "next_version": 2} for index in range(count)]
    for chunk in _chunks(rows):
        connection.execute(insert(table), chunk)
    ids = connection.execute(select(table.c.id).where(table.c.name.like("model-%"))).scalars().all()
    template = connection.execute(select(Version.__table__).limit(1)).mappings().one()
    kept = {key: value for key, value in template.items() if key not in ("id", "model_id")}
    for chunk in _chunks([{**kept, "model_id": model_id} for model_id in ids]):
        connection.execute(insert(Version), chunk)
    _raise_revision(connection, "models")


def _tokens(connection: Connection, made: Sequence[str]) -> None:
    revision = _raise_revision(connection, "tokens")
    rows = [
        {
            "name": f"application-{index}",
            "prefix": secret[:10],
            "hash": hashlib.sha256(secret.encode()).digest(),
            "revision": revision,
        }
        for index, secret in enumerate(made)
    ]
    for chunk in _chunks(rows):
        connection.execute(insert(AccessToken), chunk)


def _raise_revision(connection: Connection, name: str) -> int:
    """Tell readers that something changed, as every change through the platform does."""
    value = connection.execute(select(Revision.value).where(Revision.name == name)).scalar()
    if value is None:
        connection.execute(insert(Revision).values(name=name, value=1))
        return 1
    connection.execute(update(Revision).where(Revision.name == name).values(value=value + 1))
    return int(value) + 1


def _chunks(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    return (rows[index : index + CHUNK] for index in range(0, len(rows), CHUNK))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "")
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=100_000)
    chosen = parser.parse_args(arguments)
    one, many = Installation("one-of-each"), Installation("many-of-each")
    calls: dict[str, list[Call]] = {}
    for installation in (one, many):
        installation.add_model_for("tiny")
        # Both sides send as many prepared requests in turn, so that wrk works the same on both.
        calls[installation.name] = [installation.call(TINY, installation.create_token())] * USED
    used = fill(many, chosen.models, chosen.tokens)
    step = max(1, len(used) // USED)
    calls[many.name] = [many.call(TINY, token) for token in used[::step][:USED]]
    found, starts = _measure([one, many], calls, chosen)
    names, count = [one.name, many.name], chosen.connections[0]
    start_s = max(starts[many.name])
    memory = report.table(["", "start s (slowest)"], [[name, f"{max(starts[name]):.2f}"] for name in names])
    failures = sum(run.failures for runs in found.runs.values() for run in runs)
    report.save(
        "many_models_and_tokens",
        vars(chosen),
        {**found.to_json(), "start_s": starts},
        [report.comparison_table(found, names, "tiny", count, many.name), memory],
        [
            at_least("throughput over one of each", THROUGHPUT, found.ratio(many.name, one.name, "tiny", count)),
            at_most("start, until ready", START_S, start_s, " s"),
            at_most("failed requests", 0, failures, ""),
        ],
        report.comparison_chart(found, "Many models and tokens", names, [("tiny", count)]),
    )


def _measure(
    installations: Sequence[Installation], calls: dict[str, list[Call]], chosen: Any
) -> tuple[Comparison, dict[str, list[float]]]:
    found = Comparison()
    starts: dict[str, list[float]] = {one.name: [] for one in installations}
    for index in range(chosen.rounds):
        for installation in installations:
            print(f"round {index + 1}/{chosen.rounds}: {installation.name}", flush=True)
            began = time.monotonic()
            with installation.start([server_core()]) as server:
                starts[installation.name].append(time.monotonic() - began)
                for count in chosen.connections:
                    run = load.run(server.port, calls[installation.name], count, chosen.seconds, [load_core()])
                    found.runs.setdefault((installation.name, "tiny", count), []).append(run)
    return found, starts


if __name__ == "__main__":
    main()
