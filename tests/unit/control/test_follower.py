"""What a worker says of itself, between what the control process tells it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from core.control.follower import Follower
from core.serving.catalogue import Catalogue, Served, Share
from core.serving.target import Target
from core.tasks.base import MediaLimits

STATUS: dict[str, Any] = {
    "k": "status",
    "caught_up": True,
    "not_ready": {"broken": "failed: no such file"},
    "states": {},
    "memory": {},
    "expected": {"scale": [1], "broken": [1]},
}


class OneVersion:
    model, version = "scale", 1


def test_a_worker_is_ready_once_it_serves_itself_what_the_control_process_does() -> None:
    catalogue = Catalogue()
    with ThreadPoolExecutor(1) as threads:
        follower = Follower(Path("control.sock"), "worker 1", catalogue, threads, MediaLimits(), drain_s=1)
        follower._take_status(STATUS)
        assert follower.not_ready() == {"scale": "starting in this worker", "broken": "failed: no such file"}
        catalogue.swap("scale", [Share(Served(cast(Target, OneVersion())))])
        assert follower.not_ready() == {"broken": "failed: no such file"}
