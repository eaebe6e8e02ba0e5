"""What a kept embedding adds to a bare request: the same body read, as many bytes answered, and nothing done.

`python -m benchmarks.cached_embedding --seconds 5 --rounds 5`
"""

from __future__ import annotations

import asyncio
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import yaml

from benchmarks import models
from benchmarks.harness import client, options, report
from benchmarks.harness.client import percentile
from benchmarks.harness.machine import server_core
from benchmarks.harness.places import ROOT, scratch
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import at_most
from benchmarks.harness.server import Server, free_port
from benchmarks.harness.workload import Call

SIZES = ((128, 96), (320, 240), (640, 480))
PEERS = Path("benchmarks") / "peers"


def embedding_package() -> Path:
    """The demo classifier, whose 1000 outputs are taken for an embedding."""
    path = scratch("models") / "embedding.zip"
    manifest = yaml.safe_load((models.DEMO_MODEL / "model.yaml").read_text())
    kept = {"task": "image-embedding", "model": "model.onnx", "preprocess": manifest["preprocess"]}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.yaml", yaml.safe_dump(kept))
        archive.write(models.DEMO_MODEL / "model.onnx", "model.onnx")
    return path


def start_bare() -> Server:
    """The peer that only reads and answers, by the same HTTP server on the same core."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(PEERS), "--port", str(port), "bare:app"]
    plain = ["--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
    server = Server("bare", [*command, *plain], port, {}, [server_core()], cwd=ROOT)
    try:
        server.wait_ready("/")
    except BaseException:
        server.stop()
        raise
    return server


async def p50_ms(port: int, call: Call, seconds: float) -> float:
    """The median of calls one after the other, on one connection."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    trace = await client.closed_loop(port, call, 1, stop)
    if trace.count(lambda status: status != 200):
        raise SystemExit(f"not all calls were answered: {trace.statuses()}")
    found = percentile(trace.latencies_ms(lambda status: status == 200), 50)
    assert found is not None
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in turn, print, keep."""
    parser = options.parser(__doc__ or "", seconds=3, rounds=5, connections="1")
    chosen = parser.parse_args(arguments)
    installation = Installation("cached-embedding")
    installation.add_model("embedding", embedding_package())
    headers = {"X-Access-Token": installation.create_token(), "Content-Type": "image/jpeg"}
    found: dict[str, dict[str, float]] = {}
    with installation.start([server_core()]) as server, start_bare() as bare:
        for width, height in SIZES:
            body = models.jpeg(width, height).read_bytes()
            path = "/api/v1/inference/embedding"
            _, first = server.post(path, headers, body)
            _, again = server.post(path, headers, body)
            assert json.loads(again)["cached"], "the second answer was not a kept one"
            hit, plain = Call(path, headers, body), Call(f"/?bytes={len(again)}", headers, body)
            rounds = [
                (asyncio.run(p50_ms(bare.port, plain, chosen.seconds)),
                 asyncio.run(p50_ms(server.port, hit, chosen.seconds)))
                for _ in range(chosen.rounds)
            ]  # fmt: skip
            found[f"{len(body) / 1024:.0f} KiB"] = {
                "body_bytes": len(body),
                "answer_bytes": len(again),
                "computed_ms": json.loads(first)["timing_ms"]["total"],
                "bare_ms": median(one for one, _ in rounds),
                "hit_ms": median(one for _, one in rounds),
                "added_ms": median(hit_ms - bare_ms for bare_ms, hit_ms in rounds),
            }
    keys = ("computed_ms", "bare_ms", "hit_ms", "added_ms")
    rows = [[size, *(f"{one[key]:.3f}" for key in keys)] for size, one in found.items()]
    report.save(
        "cached_embedding",
        vars(chosen),
        {"sizes": found},
        [report.table(["body", "computed, ms", "bare request, p50 ms", "kept answer, p50 ms", "added, ms"], rows)],
        [at_most(f"added to a bare request, {size}", 0.3, one["added_ms"], " ms") for size, one in found.items()],
    )


if __name__ == "__main__":
    main()
