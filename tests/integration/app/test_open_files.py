"""A process makes room for its connections, as far as the system lets it."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.servers import ROOT

SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from app.open_files import OTHERS, allow_connections
allow_connections(1000)
print(*resource.getrlimit(resource.RLIMIT_NOFILE), OTHERS)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "warned"),
    [(256, 4000, True, False), (3000, 4000, False, False), (256, 1200, True, True), (1200, 1200, False, True)],
)
def test_the_limit_is_raised_as_far_as_it_can_be(soft: int, hard: int, raised: bool, warned: bool) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < 4000:
        pytest.skip("this machine allows too few open files itself")
    command = [sys.executable, "-c", SCRIPT, str(soft), str(hard)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    *said, last = ended.stdout.splitlines()
    now, still, others = map(int, last.split())
    assert still == hard
    assert now == (min(1000 + others, hard) if raised else soft)
    assert any("connections.limited" in line for line in said) == warned, ended.stdout
