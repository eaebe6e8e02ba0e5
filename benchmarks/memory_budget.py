"""50 models of 20 MB, a memory budget for 10 of them, calls by Zipf's law: failures, hits, loads, memory.

`python -m benchmarks.memory_budget --seconds 120 --models 50 --fits 10`
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from sqlalchemy import Table, create_engine, insert, select

from benchmarks.harness import client, options, report
from benchmarks.harness.client import Trace, percentile
from benchmarks.harness.machine import server_core
from benchmarks.harness.places import scratch
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import at_most
from benchmarks.harness.server import Server
from benchmarks.harness.workload import Call
from core.database.tables import Deployment, Model, Version

MIB = 1 << 20
INPUTS = 64
EXPONENT = 1.0
"""Of Zipf's law: the model of rank r is called in proportion to 1 / r to the power of this."""
LOAD_S = re.compile(r'"?load_s"?[=:]\s*([\d.]+)')
JSON_TYPE = {"Content-Type": "application/json"}


def heavy_model(size_bytes: int) -> Path:
    """`x` float32 [batch, 64] times weights of that size, the largest of it -> `y` float32 [batch, 1]."""
    path = scratch("models") / f"heavy-{size_bytes}.onnx"
    if not path.is_file():
        weights = np.random.default_rng(3).standard_normal((INPUTS, size_bytes // 4 // INPUTS), dtype=np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["all"]),
                helper.make_node("ReduceMax", ["all"], ["y"], axes=[1], keepdims=1),
            ],
            "heavy",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, path)
    return path


def name_of(rank: int) -> str:
    """The models' names, the one called most first."""
    return f"heavy-{rank:03d}"


def copy_deployments(installation: Installation, count: int) -> None:
    """The first model, its version and its deployment once more under so many names; the file is one."""
    engine = create_engine(f"sqlite:///{installation.data_dir / 'pulvinar.db'}")
    tables: list[Table] = [Model.__table__, Version.__table__, Deployment.__table__]  # type: ignore[list-item]
    models, versions, deployments = tables
    try:
        with engine.begin() as connection:
            first = [connection.execute(select(table).limit(1)).mappings().one() for table in tables]
            plain = [{key: value for key, value in row.items() if key not in ("id", "model_id")} for row in first]
            for rank in range(2, count + 1):
                made = connection.execute(insert(models).values({**plain[0], "name": name_of(rank)}))
                model_id = made.inserted_primary_key[0]  # type: ignore[index]
                connection.execute(insert(versions).values({**plain[1], "model_id": model_id}))
                connection.execute(insert(deployments).values({**plain[2], "model_id": model_id}))
    finally:
        engine.dispose()


def zipf_calls(token: str, models: int, count: int) -> list[Call]:
    """So many calls, the models drawn by Zipf's law, the same every time."""
    weights = 1 / np.arange(1, models + 1) ** EXPONENT
    drawn = np.random.default_rng(11).choice(models, size=count, p=weights / weights.sum())
    body = json.dumps({"inputs": {"x": [[0.5] * INPUTS]}}).encode()
    headers = {**JSON_TYPE, "X-Access-Token": token}
    return [Call(f"/api/v1/inference/{name_of(int(rank) + 1)}", headers, body) for rank in drawn]


class Memory:
    """What the server says its models take, and what its processes do, looked at while it runs."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.told: list[float] = []
        self.resident: list[int] = []

    async def watch(self, stop: asyncio.Event) -> None:
        """Look four times a second until told to stop."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._server.port}") as http:
            while not stop.is_set():
                text = (await http.get("/metrics")).text
                self.told.append(metric_sum(text, "pulvinar_model_memory_bytes"))
                self.resident.append(self._server.rss_bytes())
                await asyncio.sleep(0.25)


def metric_sum(text: str, name: str, label: str = "") -> float:
    """The sum of all of a metric's values whose labels hold `label`."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")) and label in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def drive(server: Server, calls: Sequence[Call], connections: int, seconds: float, memory: Memory) -> Trace:
    """Closed loop: each connection makes the next call of the list as soon as its last one is answered."""
    stop = asyncio.Event()
    watching = asyncio.create_task(memory.watch(stop))
    asyncio.get_running_loop().call_later(seconds, stop.set)
    trace = await client.closed_loop_of(server.port, calls, connections, stop)
    await watching
    return trace


def measure(chosen: Any) -> dict[str, Any]:
    """Prepare, fill, call; all figures, sizes in bytes."""
    size_bytes = int(chosen.megabytes * 1e6)
    installation = Installation("memory-budget")
    installation.add_model(name_of(1), heavy_model(size_bytes))
    installation.create_token()
    with installation.start([server_core()]) as server:
        one_resident = server.rss_bytes()
        taken = metric_sum(_metrics(server), "pulvinar_model_memory_bytes")
    budget_bytes = round(chosen.fits * taken * 1.02)
    copy_deployments(installation, chosen.models)
    config = scratch("data") / "memory-budget.yaml"
    config.write_text(yaml.safe_dump({"inference": {"memory_budget": budget_bytes}}))
    calls = zipf_calls(installation.token, chosen.models, 200_000)
    program = (sys.executable, "run.py", "--config", str(config))
    began = time.monotonic()
    with installation.start([server_core()], ready_timeout_s=300, program=program) as server:
        start_s = time.monotonic() - began
        memory = Memory(server)
        trace = asyncio.run(drive(server, calls, chosen.connections[0], chosen.seconds, memory))
        text = _metrics(server)
        loads_s = [float(found) for found in LOAD_S.findall(server.log.read_text(errors="replace"))]
    waited = metric_sum(text, "pulvinar_stage_seconds_count", 'stage="load"')
    waited_s = metric_sum(text, "pulvinar_stage_seconds_sum", 'stage="load"')
    base = one_resident - taken
    return {
        "model_bytes": taken,
        "budget_bytes": budget_bytes,
        "start_s": start_s,
        "requests": len(trace.samples),
        "statuses": trace.statuses(),
        "failures": trace.count(lambda status: status != 200),
        "hit_rate": 1 - waited / max(1, len(trace.samples)),
        "loads": len(loads_s),
        "load_p50_s": percentile(loads_s, 50),
        "load_p99_s": percentile(loads_s, 99),
        "wait_mean_s": waited_s / max(1.0, waited),
        "latency_p50_ms": percentile(trace.latencies_ms(lambda status: status == 200), 50),
        "latency_p99_ms": percentile(trace.latencies_ms(lambda status: status == 200), 99),
        "told_over_budget": max(memory.told) / budget_bytes,
        "base_resident_bytes": base,
        "resident_median_bytes": median(memory.resident),
        "resident_peak_bytes": max(memory.resident),
        "grown_over_budget": (max(memory.resident) - base) / budget_bytes,
        "samples": len(memory.told),
    }


def _metrics(server: Server) -> str:
    return httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=10).text


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", seconds=120, rounds=1, connections="8")
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--fits", type=float, default=10, help="models that the budget has room for")
    parser.add_argument("--megabytes", type=float, default=20, help="weights of one model, in 10^6 bytes")
    chosen = parser.parse_args(arguments)
    found = measure(chosen)
    rows = [
        ["a model, as measured alone", f"{found['model_bytes'] / MIB:.1f} MiB"],
        ["budget", f"{found['budget_bytes'] / MIB:.0f} MiB"],
        ["start, until ready", f"{found['start_s']:.1f} s"],
        ["requests", f"{found['requests']:,}"],
        ["answered without a wait for a load", f"{found['hit_rate'] * 100:.1f} %"],
        ["loads, a hundred requests", f"{found['loads']}, {100 * found['loads'] / max(1, found['requests']):.0f}"],
        ["one load, p50 / p99", f"{found['load_p50_s']:.2f} / {found['load_p99_s']:.2f} s"],
        ["mean wait of those that waited", f"{found['wait_mean_s']:.2f} s"],
        ["latency of all, p50 / p99", f"{found['latency_p50_ms']:.1f} / {found['latency_p99_ms']:.0f} ms"],
        ["resident: base, median, peak", " / ".join(
            f"{found[f'{key}_bytes'] / MIB:.0f}" for key in ("base_resident", "resident_median", "resident_peak")
        ) + " MiB"],
    ]  # fmt: skip
    report.save(
        "memory_budget",
        vars(chosen),
        found,
        [report.table(["what", "measured"], rows)],
        [
            at_most("failed requests", 0, found["failures"], ""),
            at_most("memory of all models by their measure, peak, over the budget", 1, found["told_over_budget"]),
            at_most(
                "growth of the server's resident memory, peak, over the budget", 1, found["grown_over_budget"]
            ),
        ],
    )


if __name__ == "__main__":
    main()
