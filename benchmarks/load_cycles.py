"""Does unloading a model give its memory back? Load, run and unload, over and over, in a process for each engine.

python -m benchmarks.load_cycles                       # 20 cycles of each engine on the demo classifier
python -m benchmarks.load_cycles --one onnx FILE       # one engine, as JSON
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.harness.places import scratch
from core.engines.base import EngineOptions
from core.engines.registry import engine_class, engines_for
from core.signature import NUMPY_DTYPES, Signature

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo/models/efficientnet-lite0/model.onnx"
AIM = 1.05
TOLD = {
    "inputs": [{"name": "input", "dtype": "FP32", "shape": [-1, 3, 224, 224]}],
    "outputs": [{"name": "scores", "dtype": "FP32", "shape": [-1, 680]}],
}
"""TorchScript files do not say what they take and give."""


def main(arguments: Sequence[str] | None = None) -> int:
    """A table of all engines, or one engine's figures; 1 where one has more at last than the aim allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "FILE"))
    parser.add_argument("--extra", type=json.loads, default={}, help="the engine's options, as JSON")
    chosen = parser.parse_args(arguments)
    if chosen.one:
        engine, file = chosen.one
        print(json.dumps(measure(engine, Path(file), chosen.cycles, chosen.extra)))
        return 0
    return table(chosen.cycles)


def table(cycles: int) -> int:
    """Each engine that is installed here: on the demo classifier, or for `torch` a network of the same size."""
    print(f"{cycles} cycles of {DEMO.parent.name} (torch: of as many weights), resident MiB after unloading\n")
    print("| engine | loaded | first unload | last unload | highest | last / first |\n|---|---|---|---|---|---|")
    worst = 0.0
    for name in dict.fromkeys([*engines_for("onnx"), *engines_for("torchscript")]):
        if engine_class(name).info().available:
            runs_demo = name in engines_for("onnx")
            ratio = _row(name, DEMO if runs_demo else torchscript(), cycles, {} if runs_demo else TOLD)
            worst = max(worst, ratio)
    return int(worst > AIM)


def measure(name: str, path: Path, cycles: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Resident bytes with the model loaded and run once, and after each unload."""
    process, engine = psutil.Process(), engine_class(name)()
    loaded, unloaded = 0, []
    for _ in range(cycles):
        signature = engine.load(path, EngineOptions(threads=1, extra=extra))
        engine.run(_ones(signature))
        loaded = max(loaded, process.memory_info().rss)
        engine.close()
        unloaded.append(process.memory_info().rss)
    return {"engine": name, "loaded_bytes": loaded, "unloaded_bytes": unloaded}


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


def _row(name: str, file: Path, cycles: int, extra: Mapping[str, Any]) -> float:
    command = [sys.executable, "-m", "benchmarks.load_cycles", "--one", name, str(file), "--cycles", str(cycles)]
    command += ["--extra", json.dumps(extra)]
    said = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    loaded, (first, *_, last) = said["loaded_bytes"], said["unloaded_bytes"]
    highest = max(said["unloaded_bytes"])
    figures = " | ".join(f"{value / (1 << 20):.1f}" for value in (loaded, first, last, highest))
    print(f"| `{name}` | {figures} | {last / first:.3f} |", flush=True)
    return float(last / first)


def _ones(signature: Signature) -> dict[str, np.ndarray[Any, Any]]:
    return {
        spec.name: np.ones([1 if size == -1 else size for size in spec.shape], NUMPY_DTYPES[spec.dtype])
        for spec in signature.inputs
    }


if __name__ == "__main__":
    sys.exit(main())
