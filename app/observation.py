"""Reads what all processes have counted, and what the machine does."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import psutil

from app.external.metrics import observe
from app.readings import Reading, Tally
from app.recorder import Recorder
from app.state import Platform
from app.tallies import counts_of
from core.metrics import STAGES

_TOTAL: Final = STAGES.index("total")


async def read(platform: Platform) -> Reading:
    """Read what all processes have counted. Raises Unavailable where the control process does not answer."""
    totals = await platform.reconciler.totals()
    observed = await observe(platform, totals)
    models: dict[str, Tally] = {}
    versions: dict[tuple[str, int], Tally] = {}
    for (model, version), counts in list(counts_of(platform, totals).versions.items()):
        requests = counts.requests.items()
        failed = sum(count for (status, _), count in requests if status >= 500)
        one = Tally(sum(counts.requests.values()), failed, list(counts.buckets[_TOTAL]))
        versions[model, version] = one
        models[model] = models[model].plus(one) if model in models else one
    queues: dict[str, int] = {}
    batches: dict[str, dict[int, int]] = {}
    for (model, _), stats in observed.versions.items():
        queues[model] = queues.get(model, 0) + stats.depth
        sizes = batches.setdefault(model, {})
        for size, number in stats.batch_sizes.items():
            sizes[size] = sizes.get(size, 0) + number
    memory = {model: sum(versions.values()) for model, versions in platform.reconciler.memory().items()}
    used = psutil.virtual_memory()
    per_core = psutil.cpu_percent(percpu=True)
    percent = sum(per_core) / max(1, len(per_core))
    taken = used.total - used.available
    return Reading(time.time(), models, queues, batches, memory, percent, taken, used.total, per_core, versions)


def keep_history(platform: Platform) -> Coroutine[Any, Any, None]:
    """Give the platform its recorder; answers what is to run in the background."""
    platform.recorder = Recorder(platform.database, partial(read, platform))
    return platform.recorder.run()
