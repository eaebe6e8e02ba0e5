"""The limits that a process sets on itself before it touches a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 1 << 31


@pytest.mark.parametrize("gpu", [False, True])
def test_the_address_space_is_capped_only_where_no_gpu_is_asked_for(gpu: bool) -> None:
    """CUDA reserves more addresses than there is memory; with a cap on them it does not start."""
    code = (
        "import os, resource\n"
        "from core.validation.child import confine\n"
        f"confine({LIMIT}, 10, os.getppid(), gpu={gpu})\n"
        "print(*(resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    space, data = map(int, done.stdout.split())
    assert (space == LIMIT) is not gpu
    assert (data == LIMIT) is gpu
