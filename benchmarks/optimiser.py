"""What the search for the best engine finds for the classifier, and what that makes of JPEG -> top five over HTTP.

Everything on one core: the search, the server that follows what it found, and bare FastAPI with ONNX Runtime fp32
beside it. The samples are parts of the demo's photos; half of them calibrate, the other half judges.

`python -m benchmarks.optimiser --budget-s 180 --samples 420 --seconds 5 --rounds 3 --connections 16`
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import models
from benchmarks.harness import options, report
from benchmarks.harness.machine import server_core
from benchmarks.harness.peers import VENV_PEERS
from benchmarks.harness.pulvinar import MODEL_OF, Installation, PulvinarPeer
from benchmarks.harness.report import Reach, at_least, at_most
from benchmarks.harness.rounds import Comparison, compare
from benchmarks.harness.workload import Kind, photo
from demo.tuning import crops

LATENCY_AIM, HTTP_AIM, WITHIN_S, MOST_LOSS = 1.7, 2.5, 180.0, 0.01


@dataclass
class OptimisedPeer(PulvinarPeer):
    """Pulvinar with `engine: auto` after a search on the core that it serves on."""

    budget_s: float = 180
    samples: int = 420
    took_s: float = 0.0

    def prepare(self, kind: Kind) -> None:
        """Add the model and its samples, and search."""
        made = Installation(f"{self.name}-{kind}")
        made.add_model(MODEL_OF[kind], models.classifier_package())
        file = made.data_dir / "samples.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for number, jpeg in enumerate(crops(self.samples)):
                archive.writestr(f"{number:04}.jpg", jpeg)
        made.cli("model", "samples", "add", MODEL_OF[kind], str(file))
        everything = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {server_core()})
        began = time.monotonic()
        try:
            print(made.cli("model", "optimise", MODEL_OF[kind], "--budget-s", str(self.budget_s)), flush=True)
        finally:
            os.sched_setaffinity(0, everything)
        self.took_s = time.monotonic() - began
        made.create_token()
        self.installation = made

    def found(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The trials and the recommendation."""
        assert self.installation is not None
        with sqlite3.connect(self.installation.data_dir / "pulvinar.db") as database:
            query = "SELECT trials, recommendation FROM optimisations ORDER BY id DESC LIMIT 1"
            trials, recommendation = database.execute(query).fetchone()
        return json.loads(trials), json.loads(recommendation)


def trials_table(trials: Sequence[dict[str, Any]], recommendation: dict[str, Any]) -> str:
    """Every row of the search, as an administrator sees it."""
    rows = []
    for trial in trials:
        figures = trial["figures"]
        mark = " ←" if trial["number"] == recommendation["trial"] else ""
        measured = ["–"] * 6
        if figures is not None:
            speedup, loss = trial["speedup"], trial["loss"]
            measured = [
                f"{figures['p50_ms']:.2f}", f"{figures['p99_ms']:.2f}", f"{figures['memory_bytes'] / 1e6:.0f}",
                f"{figures['load_s']:.2f}", f"{speedup:.2f}x" if speedup else "–",
                f"{loss:.2%}" if loss is not None else "–",
            ]  # fmt: skip
        rows.append([trial["label"], *measured, trial["status"] + mark])
    return report.table(["trial", "p50 ms", "p99 ms", "MB", "load s", "gain", "loss", "status"], rows)


def reaches(peer: OptimisedPeer, found: Comparison, connections: int) -> list[Reach]:
    """The aims of the search, and over HTTP."""
    trials, recommendation = peer.found()
    chosen = trials[recommendation["trial"] - 1]
    judged = recommendation["samples"]["judging"]
    return [
        at_least("judging crops", 200, float(judged), ""),
        at_least("latency of the chosen over onnx fp32", LATENCY_AIM, recommendation["gain"]),
        at_most("answers lost", MOST_LOSS, chosen["loss"] if chosen["loss"] is not None else 0.0, ""),
        at_most("found within", WITHIN_S, peer.took_s, " s"),
        at_least(f"JPEG 640x480, {connections} connections, over fastapi", HTTP_AIM,
                 found.ratio(peer.name, "fastapi", "jpeg-640x480", connections)),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", connections="16")
    parser.add_argument("--budget-s", type=float, default=180)
    parser.add_argument("--samples", type=int, default=420)
    chosen = parser.parse_args(arguments)
    peer = OptimisedPeer("pulvinar-auto", budget_s=chosen.budget_s, samples=chosen.samples)
    peers = [peer, VENV_PEERS["fastapi"]]
    found = compare(peers, [photo(640, 480)], chosen.connections, chosen.rounds, chosen.seconds)
    trials, recommendation = peer.found()
    names = [one.name for one in peers]
    cases = [("jpeg-640x480", count) for count in chosen.connections]
    report.save(
        "optimiser",
        vars(chosen),
        {**found.to_json(), "trials": trials, "recommendation": recommendation, "took_s": peer.took_s},
        [
            trials_table(trials, recommendation),
            *(report.comparison_table(found, names, work, count, peer.name) for work, count in cases),
        ],
        reaches(peer, found, max(chosen.connections)),
        report.comparison_chart(found, "JPEG to top five with the engine found, one core", names, cases),
    )


if __name__ == "__main__":
    main()
