from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.control.memory import node_bytes, process_bytes
from core.settings import InferenceSettings, budget_bytes

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("budget", "size_bytes"),
    [
        (0, 0),
        ("0", 0),
        (1234, 1234),
        ("1234", 1234),
        ("2GiB", 2 * GIB),
        ("1.5 gib", 3 * GIB // 2),
        ("512MB", 512_000_000),
        ("10kB", 10_000),
        ("1TiB", 1 << 40),
        ("60%", 6 * GIB),
        ("12.5 %", 5 * GIB // 4),
    ],
)
def test_a_budget_in_bytes_units_or_a_share(budget: int | str, size_bytes: int) -> None:
    assert budget_bytes(budget, 10 * GIB) == size_bytes
    assert InferenceSettings(memory_budget=budget).memory_budget == budget


@pytest.mark.parametrize("budget", ["", "much", "-1", -1, "2 GB of it", "101%", "1e9", "GiB"])
def test_what_is_no_budget(budget: int | str) -> None:
    with pytest.raises(ValidationError, match="memory_budget"):
        InferenceSettings(memory_budget=budget)


def test_the_container_counts_where_it_has_less(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for text, expected in ((f"{64 * MIB}\n", 64 * MIB), ("max\n", machine), (str(1 << 60), machine)):
        (tmp_path / "memory.max").write_text(text)
        assert node_bytes(tmp_path) == expected
    assert node_bytes(tmp_path / "nowhere") == machine


def test_a_process_is_measured_while_it_lives() -> None:
    program = "x = bytearray(b'1') * (50 << 20); print('there', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert 50 * MIB < process_bytes(child.pid) < 90 * MIB
    child.communicate("\n", timeout=10)
    assert process_bytes(child.pid) == 0
