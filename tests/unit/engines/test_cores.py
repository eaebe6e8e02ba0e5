from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.engines.cores import cores_available

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, ALLOWED, id="nobody says"),
        pytest.param({"cpu.max": "max 100000"}, ALLOWED, id="no quota"),
        pytest.param({"cpu.max": "100000 100000"}, 1, id="one core"),
        pytest.param({"cpu.max": "50000 100000"}, 1, id="half a core"),
        pytest.param({"cpu.max": "99900000 100000"}, ALLOWED, id="more than there are"),
        pytest.param({"cpu.max": "nonsense"}, ALLOWED, id="nonsense"),
        pytest.param({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, ALLOWED, id="v1, none"),
        pytest.param({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1, id="v1, one core"),
    ],
)
def test_a_container_s_quota_counts(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    assert cores_available(tmp_path) == cores
