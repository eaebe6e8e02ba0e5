"""Where benchmarks keep things; all but the results can be deleted at any time."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
PEERS = BENCHMARKS / "peers"
RESULTS = BENCHMARKS / "results"
DEMO_MODEL = ROOT / "demo" / "models" / "efficientnet-lite0"
DEMO_IMAGES = ROOT / "demo" / "images"
ENVIRONMENTS = ROOT / "build" / "bench-venvs"
SCRATCH = ROOT / "build" / "bench"


def scratch(*parts: str) -> Path:
    """A folder for generated files, made when missing."""
    folder = SCRATCH.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
