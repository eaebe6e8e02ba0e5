"""Where the time of a photo goes: decoding, resizing, and the demo classifier's layers at 32 bits and in bfloat16.

`python -m benchmarks.classifier_profile --rounds 200 [--form model.xml]`, a form as `model optimise` made it. One
thread; of each step the fastest of all rounds, which what else runs on the machine disturbs least. Prints tables.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import openvino
import yaml

from benchmarks import models
from benchmarks.harness.places import DEMO_MODEL
from benchmarks.harness.report import table
from benchmarks.harness.workload import photo
from core.media import images
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload
from core.tasks.image_classification import ImageClassification

KINDS = (("stem", "_stem"), ("by channel", "depthwise"), ("one pixel", "expand"), ("one pixel", "project"),
         ("one pixel", "_conv_head"), ("last", "logits"))  # fmt: skip
SIGNATURE = Signature(
    (TensorSpec("image", "FP32", (-1, 3, 224, 224)),), (TensorSpec("logits", "FP32", (-1, 1000)),)
)


def fastest_ms(step: Callable[[], Any], rounds: int) -> float:
    """Milliseconds of the fastest of so many runs."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return min(times) * 1000


def kind_of(name: str) -> str:
    """Which kind of layer a node is."""
    return next((kind for kind, part in KINDS if part in name), "the rest")


def layers_ms(path: Path, precision: str, item: np.ndarray[Any, Any], rounds: int) -> Mapping[str, float]:
    """OpenVINO's time by kind of layer, and of the whole run under `all`, without the profiler."""
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
    core = openvino.Core()
    request = core.compile_model(str(path), "CPU", {**config, "PERF_COUNT": True}).create_infer_request()
    nodes: dict[str, float] = {}
    for _ in range(rounds):
        request.infer([item])
        for node in request.profiling_info:
            taken_ms = node.real_time.total_seconds() * 1000
            nodes[node.node_name] = min(taken_ms, nodes.get(node.node_name, taken_ms))
    kinds: dict[str, float] = defaultdict(float)
    for name, taken_ms in nodes.items():
        kinds[kind_of(name)] += taken_ms
    plain = core.compile_model(str(path), "CPU", config).create_infer_request()
    return {**kinds, "all": fastest_ms(lambda: plain.infer([item]), rounds)}


def steps_ms(item: np.ndarray[Any, Any], rounds: int) -> Mapping[str, float]:
    """What a JPEG of 640x480 takes before the engine, and ONNX Runtime at 32 bits."""
    jpeg = photo(640, 480).jpeg
    config = yaml.safe_load((DEMO_MODEL / "model.yaml").read_text())
    told = {key: config[key] for key in ("labels", "preprocess", "postprocess")}
    task = ImageClassification(told, SIGNATURE, DEMO_MODEL)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(models.CLASSIFIER), options, providers=["CPUExecutionProvider"])
    return {
        "decode": fastest_ms(lambda: images.decode(jpeg, max_pixels=1 << 24), rounds),
        "decode and resize": fastest_ms(lambda: task.preprocess([Payload(jpeg, "image/jpeg")], {}), rounds),
        "ONNX Runtime fp32": fastest_ms(lambda: session.run(None, {"image": item}), rounds),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--form", type=Path, help="a converted form, for a column of its own")
    chosen = parser.parse_args(arguments)
    item = np.random.default_rng(1).normal(0, 0.5, (1, 3, 224, 224)).astype(np.float32)
    steps = steps_ms(item, chosen.rounds)
    print(table(["step", "ms"], [[name, f"{taken:.2f}"] for name, taken in steps.items()]))
    columns = {
        "fp32": layers_ms(models.CLASSIFIER, "f32", item, chosen.rounds),
        "bf16": layers_ms(models.CLASSIFIER, "bf16", item, chosen.rounds),
    }
    if chosen.form:
        columns[chosen.form.parent.name] = layers_ms(chosen.form, "bf16", item, chosen.rounds)
    names = [*dict.fromkeys(kind for kind, _ in KINDS), "the rest", "all"]
    rows = [[name, *(f"{column.get(name, 0):.2f}" for column in columns.values())] for name in names]
    print(table(["OpenVINO's layers, ms", *columns], rows))


if __name__ == "__main__":
    main()
