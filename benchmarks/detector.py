"""The demo detector through HTTP against a reference run of the same model: boxes, classes and time.

`python -m benchmarks.detector --pictures 50 --least 0.15`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import httpx
import numpy as np
import onnxruntime

from benchmarks import models
from benchmarks.harness import options, report
from benchmarks.harness.machine import server_core
from benchmarks.harness.pulvinar import Installation
from benchmarks.harness.report import at_most
from tests.centernet import OVERLAP, ROOT, pictures, reference, suppressed


@dataclass(frozen=True)
class Compared:
    """One picture: the reference's boxes, whether the classes agree, and how far the worst edge is off."""

    picture: str
    boxes: int
    same_classes: bool
    off_px: float
    timing_ms: dict[str, float]


def compare(
    client: httpx.Client, session: onnxruntime.InferenceSession, name: str, data: bytes, least: float
) -> Compared:
    """One picture through HTTP and through the reference, everything that scores `least`."""
    form: dict[str, Any] = {
        "files": {"image": data},
        "data": {"parameters": json.dumps({"score_threshold": least})},
    }
    answer = client.post("/api/v1/inference/detector", **form)
    answer.raise_for_status()
    found = answer.json()
    wanted = suppressed(reference(session, data, least), OVERLAP)
    same = [one["label"] for one in found["detections"]] == [label for label, _, _ in wanted]
    off = [
        float(np.abs(np.subtract(one["box"], box)).max())
        for one, (_, _, box) in zip(found["detections"], wanted, strict=False)
    ]
    return Compared(name, len(wanted), same, max(off, default=0.0) if same else float("inf"), found["timing_ms"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print, keep."""
    parser = options.parser(__doc__ or "")
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--least", type=float, default=0.15, help="the lowest score that is compared")
    chosen = parser.parse_args(arguments)
    installation = Installation("detector")
    installation.add_model("detector", models.detector_package())
    headers = {"X-Access-Token": installation.create_token()}
    session = onnxruntime.InferenceSession(ROOT / "model.onnx", providers=["CPUExecutionProvider"])
    with installation.start([server_core()]) as server:
        base = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
            found = [
                compare(client, session, name, data, chosen.least) for name, data in pictures(chosen.pictures)
            ]
    stages = {stage: median(one.timing_ms[stage] for one in found) for stage in found[0].timing_ms}
    rows = [
        ["pictures", str(len(found))],
        ["boxes of the reference", str(sum(one.boxes for one in found))],
        ["pictures whose classes are the reference's", str(sum(one.same_classes for one in found))],
        ["most that an edge is off, pixels of the picture", f"{max(one.off_px for one in found):.3f}"],
        *([f"{stage}, median ms", f"{value:.2f}"] for stage, value in stages.items()),
    ]
    report.save(
        "detector",
        vars(chosen),
        {"pictures": [asdict(one) for one in found]},
        [report.table(["what", "measured"], rows)],
        [
            at_most(
                "pictures with other classes than the reference", 0, sum(not one.same_classes for one in found), ""
            ),
            at_most("an edge of a box off the reference", 1, max(one.off_px for one in found), " px"),
        ],
    )


if __name__ == "__main__":
    main()
