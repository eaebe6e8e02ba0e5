"""Detect, cut out and classify ten objects of a photo in one call, against the bare engine runs that this takes.

The bare side runs the same models in this process, with all cores and no server: the detector once, and the
classifier on the ten parts, one by one or as one batch, whichever is faster here. All are measured in turn,
each for a while, so that its weights are in the caches. `one after the other` is the detector and then the batch,
as a call runs them; the aim is held against the others.

`python -m benchmarks.pipeline --rounds 9 --seconds 3`
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import yaml

from benchmarks import models
from benchmarks.harness import options, report
from benchmarks.harness.places import DEMO_MODEL, ROOT, scratch
from benchmarks.harness.pulvinar import Admin, Installation
from benchmarks.harness.report import at_least, at_most
from benchmarks.harness.svg import Bars, bar_chart
from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.media.images import Decoded
from core.pipelines.operations import OPERATIONS
from core.tasks.base import Payload
from core.tasks.registry import task_class

DETECTOR = ROOT / "demo" / "models" / "centernet-mobilenetv3"
OBJECTS = 10
MOST = 1.15
GRAPH = f"""
inputs: {{photo: image}}
nodes:
  detect: {{model: detector, input: photo, parameters: {{score_threshold: 0.01}}}}
  best: {{op: top-k, input: detect.detections, k: {OBJECTS}}}
  objects:
    op: map
    over: best
    nodes:
      crop: {{op: crop, inputs: {{image: photo, box: item}}}}
      class: {{model: classifier, input: crop}}
      named: {{op: merge, inputs: {{box: item.box, classes: class.predictions}}}}
    output: named
outputs: {{objects: objects}}
"""


class Bare:
    """A demo model by its engine alone, on all cores, with its own task to make its inputs."""

    def __init__(self, folder: Path) -> None:
        said = yaml.safe_load((folder / "model.yaml").read_text())
        config = {key: said[key] for key in ("preprocess", "postprocess", "labels") if key in said}
        self._engine = OnnxEngine()
        signature = self._engine.load(folder / "model.onnx", EngineOptions(threads=len(os.sched_getaffinity(0))))
        self._task = task_class(said["task"])(config, signature, folder)

    def inputs(self, images: Sequence[Decoded]) -> Mapping[str, np.ndarray[Any, Any]]:
        """Tensors of these images."""
        return self._task.preprocess([Payload(b"", image=image) for image in images], {}).inputs

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """One run of the engine, and nothing else."""
        self._engine.run(inputs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    made = options.parser(__doc__ or "", seconds=3, rounds=9)
    chosen = made.parse_args(arguments)
    photo = models.jpeg(640, 480, "coffee").read_bytes()
    installation = _installed()
    times: dict[str, list[float]] = {"pipeline": [], "one by one": [], "one batch": [], "detector": []}
    times["one after the other"] = []
    with installation.start(None) as server, Admin(server.port) as admin:
        url = f"http://127.0.0.1:{server.port}/api/v1/inference/objects"
        headers = {"X-Access-Token": installation.token, "Content-Type": "image/jpeg"}
        with httpx.Client(headers=headers, timeout=60) as client:
            boxes = [one["box"] for one in _ask(client, url, photo)["objects"]]
            if len(boxes) != OBJECTS:
                raise SystemExit(f"the photo has {len(boxes)} objects for the detector, not {OBJECTS}")
            work = _work(photo, boxes)
            work["pipeline"] = lambda: _ask(client, url, photo)
            before = _batches(admin)
            for index in range(chosen.rounds):
                print(f"round {index + 1}/{chosen.rounds}", flush=True)
                for name in list(times)[index % len(times) :] + list(times)[: index % len(times)]:
                    times[name] += _repeat(work[name], chosen.seconds / len(times))
            batches = _batches(admin) - before
    _report(vars(chosen), times, batches)


def _installed() -> Installation:
    installation = Installation("pipeline")
    package, graph = scratch("models") / "detector.zip", scratch("models") / "objects.yaml"
    with zipfile.ZipFile(package, "w") as archive:
        for file in sorted(DETECTOR.iterdir()):
            archive.write(file, file.name)
    installation.add_model("detector", package)
    installation.add_model("classifier", models.classifier_package())
    graph.write_text(GRAPH)
    installation.cli("pipeline", "add", "objects", str(graph), "--deploy")
    installation.create_token()
    return installation


def _work(photo: bytes, boxes: Sequence[Any]) -> dict[str, Callable[[], object]]:
    from core.media.images import decode_scaled

    detector, classifier = Bare(DETECTOR), Bare(DEMO_MODEL)
    image = decode_scaled(photo, max_pixels=10**8)
    crop = OPERATIONS["crop"]
    parts = [crop.run({"image": image, "box": box}, {"margin": 0.0})["image"] for box in boxes]
    whole, all_parts = detector.inputs([image]), classifier.inputs(parts)
    single = [classifier.inputs([part]) for part in parts]

    def one_by_one() -> None:
        for inputs in single:
            classifier.run(inputs)

    def one_after_the_other() -> None:
        detector.run(whole)
        classifier.run(all_parts)

    return {
        "one after the other": one_after_the_other,
        "detector": lambda: detector.run(whole),
        "one batch": lambda: classifier.run(all_parts),
        "one by one": one_by_one,
    }


def _ask(client: httpx.Client, url: str, photo: bytes) -> dict[str, Any]:
    answer = client.post(url, content=photo)
    answer.raise_for_status()
    value: dict[str, Any] = json.loads(answer.content)
    return value


def _batches(admin: Admin) -> Counter[int]:
    sizes = admin.deployment("classifier")["observed"]["batch_sizes"]
    return Counter({int(size): count for size, count in sizes.items()})


def _repeat(work: Callable[[], object], seconds: float) -> list[float]:
    """Milliseconds of each call, for so long, after one that does not count."""
    work()
    found, until = [], time.perf_counter() + seconds
    while not found or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1000)
    return found


def _report(settings: dict[str, Any], times: Mapping[str, Sequence[float]], batches: Counter[int]) -> None:
    middles = {name: median(found) for name, found in times.items()}
    bare = middles["detector"] + min(middles["one by one"], middles["one batch"])
    over_single = middles["pipeline"] / (middles["detector"] + middles["one by one"])
    items = sum(size * count for size, count in batches.items())
    mean = items / max(1, sum(batches.values()))
    rows = [
        ["the pipeline, over HTTP", f"{middles['pipeline']:.1f}"],
        ["bare: the detector", f"{middles['detector']:.1f}"],
        [f"bare: the classifier on {OBJECTS} parts, one by one", f"{middles['one by one']:.1f}"],
        [f"bare: the classifier on {OBJECTS} parts, one batch", f"{middles['one batch']:.1f}"],
        ["bare: the sum, with the faster of these two", f"{bare:.1f}"],
        ["bare: the detector, and then the one batch", f"{middles['one after the other']:.1f}"],
        ["the pipeline over the detector and ten runs of one part", f"{over_single:.2f}x"],
        ["parts in a batch, on average", f"{mean:.1f}"],
    ]
    report.save(
        "pipeline",
        settings,
        {"median_ms": middles, "calls": {name: len(found) for name, found in times.items()}, "batches": batches},
        [report.table(["what", "p50 ms"], rows)],
        [
            at_most("the pipeline over its bare engine runs", MOST, middles["pipeline"] / bare),
            # How many is the batch size policy's matter: on a CPU a larger batch may be slower for each item.
            at_least("the largest batch that parts shared", 2, max(batches, default=0), ""),
        ],
        bar_chart(Bars("Ten objects of a photo", "ms", {"p50": {"pipeline": middles["pipeline"], "bare": bare}})),
    )


if __name__ == "__main__":
    main()
