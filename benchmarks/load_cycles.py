"""Does unloading a model give its memory back? Load, run and unload, over and over, as a server does it.

`python -m benchmarks.load_cycles --cycles 20 --rounds 5`; `--one onnx FILE` prints one engine's figures as JSON.

Each engine is measured twice: by itself in a process set up as a server's is (one heap for all threads; loads,
runs and unloads by any of four threads, or by one where the engine only ever runs in a process of its own), and
through a server that takes the model into service and out of it, with all of its processes counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Barrier
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks import models
from benchmarks.harness import options, report
from benchmarks.harness.places import scratch
from benchmarks.harness.pulvinar import Admin, Installation
from benchmarks.harness.report import at_most
from core.control.machine import nvml_library
from core.engines.base import EngineOptions
from core.engines.heap import passing_blocks, use_one_arena
from core.engines.registry import engine_class
from core.signature import NUMPY_DTYPES, Signature
from tests.speech import whisper_folder, whisper_package

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo/models/efficientnet-lite0/model.onnx"
MIB = 1 << 20
AIM = 1.05
THREADS = 4
TOLD = {
    "inputs": [{"name": "input", "dtype": "FP32", "shape": [-1, 3, 224, 224]}],
    "outputs": [{"name": "scores", "dtype": "FP32", "shape": [-1, 680]}],
}
"""TorchScript files do not say what they take and give."""


class Subject(NamedTuple):
    """An engine, what it loads, and that as it is uploaded."""

    engine: str
    what: str
    path: Callable[[], Path]
    package: Callable[[], Path] = Path
    extra: Mapping[str, Any] = {}
    device: str = "cpu"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = options.parser(__doc__ or "", seconds=0, rounds=5)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "FILE"))
    parser.add_argument("--extra", type=json.loads, default={}, help="the engine's options, as JSON")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args(arguments)
    if chosen.one:
        engine, file = chosen.one
        subject = Subject(engine, "", partial(Path, file), extra=chosen.extra, device=chosen.device)
        print(json.dumps(measure(subject, chosen.cycles)))
        return
    every = subjects()
    alone, served = (
        {one.engine: [how(one, chosen.cycles) for _ in range(chosen.rounds)] for one in every}
        for how in (_in_a_process, through_a_server)
    )
    what = {one.engine: one.what for one in every}
    ways = {"by itself": alone, "through a server": served}
    report.save(
        "load_cycles",
        {"cycles": chosen.cycles, "rounds": chosen.rounds, "no_save": chosen.no_save},
        {"runs": ways},
        [_table(way, found, what, chosen.cycles) for way, found in ways.items()],
        [
            at_most(
                f"{name}, {way}: after any unload over the first, worst round", AIM, max(map(_highest, rounds))
            )
            for way, found in ways.items()
            for name, rounds in found.items()
        ],
    )


def subjects() -> list[Subject]:
    """Those that can run here."""
    classifier = ("EfficientNet-lite0, 18 MiB", lambda: DEMO, models.classifier_package)
    whisper = ("Whisper tiny.en, 72 MiB", lambda: whisper_folder() / "model.bin", _whisper_package)
    every = [
        Subject("onnx", *classifier),
        Subject("openvino", *classifier),
        Subject("torch", "convolutions, TorchScript, 18 MiB", torchscript, _torch_package, TOLD),
        Subject("ctranslate2", *whisper),
        Subject("tensorrt", *classifier, device="cuda:0"),
    ]
    infos = {one.engine: engine_class(one.engine).info() for one in every}
    return [one for one in every if infos[one.engine].available and one.device in infos[one.engine].devices]


def measure(subject: Subject, cycles: int) -> dict[str, Any]:
    """Bytes held with the model loaded and run, and after each unload; of the GPU where it runs on one."""
    use_one_arena()
    path, engine = subject.path(), engine_class(subject.engine)()
    chosen = EngineOptions(device=subject.device, threads=1, extra=subject.extra)
    loaded, unloaded = 0, []
    count = 1 if engine.always_hosted else THREADS
    everyone = Barrier(count)
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(lambda _: everyone.wait(), range(count)))  # all there, that work may come to any
        for _ in range(cycles):
            with passing_blocks():
                signature = threads.submit(engine.load, path, chosen).result()
                threads.submit(engine.run, _ones(signature)).result()
            loaded = max(loaded, _held_bytes(subject.device))
            threads.submit(engine.close).result()
            unloaded.append(_held_bytes(subject.device))
    return {"engine": subject.engine, "loaded_bytes": loaded, "unloaded_bytes": unloaded}


def through_a_server(subject: Subject, cycles: int) -> dict[str, Any]:
    """The same of a server's processes together, which takes the model into service and out of it."""
    installation = Installation(f"load-cycles-{subject.engine}")
    installation.add_model("model", subject.package(), deploy=False)
    loaded, unloaded = 0, []
    with installation.start(None) as server, Admin(server.port) as admin:
        for _ in range(cycles):
            admin.deploy("model", version=1, engine=subject.engine, device=subject.device)
            loaded = max(loaded, server.rss_bytes())
            admin.undeploy("model")
            unloaded.append(server.rss_bytes())
    said = {"engine": subject.engine, "loaded_bytes": loaded, "unloaded_bytes": unloaded}
    print(f"{subject.engine}, through a server: {_highest(said):.3f}", flush=True)
    return said


def torchscript() -> Path:
    """Convolutions of 4.7 million weights over 3 x 224 x 224, as TorchScript; made once."""
    import torch

    path = scratch("models") / "convolutions.pt"
    if not path.is_file():
        torch.manual_seed(3)
        sizes = [3, 32, 64, 128, 256, 512, 680]
        layers: list[torch.nn.Module] = []
        for taken, given in pairwise(sizes):
            layers += [torch.nn.Conv2d(taken, given, 3, stride=2, padding=1), torch.nn.ReLU()]
        net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
        torch.jit.trace(net, torch.zeros(1, 3, 224, 224)).save(str(path))
    return path


def _torch_package() -> Path:
    path = scratch("models") / "convolutions.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.yaml", json.dumps({"task": "tensor", **TOLD}))  # JSON is YAML
        archive.write(torchscript(), "model.pt")
    return path


def _whisper_package() -> Path:
    path = scratch("models") / "whisper.zip"
    path.write_bytes(whisper_package())
    return path


def _in_a_process(subject: Subject, cycles: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load_cycles", "--cycles", str(cycles)]
    command += ["--one", subject.engine, str(subject.path()), "--device", subject.device]
    command += ["--extra", json.dumps(subject.extra)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    print(f"{subject.engine}: {_highest(said):.3f}", flush=True)
    return said


def _table(
    way: str, found: Mapping[str, Sequence[Mapping[str, Any]]], what: Mapping[str, str], cycles: int
) -> str:
    rows = []
    for name, rounds in found.items():
        figures = [
            median(run["loaded_bytes"] for run in rounds),
            median(run["unloaded_bytes"][0] for run in rounds),
            median(run["unloaded_bytes"][-1] for run in rounds),
        ]
        ratios = sorted(_last(run) for run in rounds)
        rows.append([
            name,
            what[name],
            *(f"{value / MIB:.1f}" for value in figures),
            f"{ratios[0]:.3f} to {ratios[-1]:.3f}",
            f"{max(map(_highest, rounds)):.3f}",
        ])  # fmt: skip
    last = f"unload {cycles}, MiB"
    head = [
        f"engine, {way}",
        "model",
        "loaded, MiB",
        "unload 1, MiB",
        last,
        "last / first",
        "highest / first, at worst",
    ]
    return report.table(head, rows)


def _last(run: Mapping[str, Any]) -> float:
    return float(run["unloaded_bytes"][-1] / run["unloaded_bytes"][0])


def _highest(run: Mapping[str, Any]) -> float:
    return float(max(run["unloaded_bytes"]) / run["unloaded_bytes"][0])


def _held_bytes(device: str) -> int:
    """Of this process's memory; of a GPU's, what all have taken, since a container cannot tell whose it is."""
    if device == "cpu":
        return int(psutil.Process().memory_info().rss)
    nvml = nvml_library()
    if nvml is None:
        raise SystemExit("NVML is not here, which tells what is in use of a GPU: install nvidia-ml-py.")
    handle = nvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def _ones(signature: Signature) -> dict[str, np.ndarray[Any, Any]]:
    return {
        spec.name: np.ones([1 if size == -1 else size for size in spec.shape], NUMPY_DTYPES[spec.dtype])
        for spec in signature.inputs
    }


if __name__ == "__main__":
    main()
