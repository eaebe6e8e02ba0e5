"""`/metrics`, for the configured scrapers only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from app.errors import respond
from app.external.metrics_text import CONTENT_TYPE, Observed, render
from app.state import Platform, platform_of
from app.tallies import counts_of, health_of, spans_of, streams_of
from core.access.addresses import is_in, read_address, read_network
from core.control.machine import machine_metrics
from core.control.memory import node_bytes
from core.control.totals import Report
from core.errors import Forbidden, Unavailable
from core.metrics import Counts
from core.serving.deployment import Deployment
from core.settings import budget_bytes


async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    platform = platform_of(request)
    if not _allowed(platform, request.client.host if request.client else ""):
        return respond(request, Forbidden("This address may not read the metrics."))
    try:
        totals = await platform.reconciler.totals()
    except Unavailable as error:
        return respond(request, error)
    observed = await observe(platform, totals)
    counts = counts_of(platform, totals)  # not in the thread: they belong to this loop
    body = await asyncio.to_thread(_render, platform, counts, observed)
    return Response(body, media_type=CONTENT_TYPE)


def _render(platform: Platform, counts: Counts, observed: Observed) -> bytes:
    observed.machine = machine_metrics(platform.settings.data_dir)
    return render(counts, observed)


async def observe(platform: Platform, totals: Report | None) -> Observed:
    """What the versions in service hold now; all are asked at once, for some answer from another process."""
    targets = [
        target
        for targets in platform.catalogue.targets().values()
        for target in targets
        if isinstance(target, Deployment)
    ]
    stats = await asyncio.gather(*(target.stats() for target in targets))
    if totals is not None:  # a worker has seen only those restarts that came in its own life
        for target, found in zip(targets, stats, strict=True):
            restarts = totals.get(target.model, {}).get("restarts", {})
            found.restarts = restarts.get(str(target.version), 0)
    return Observed(
        versions={(one.model, one.version): found for one, found in zip(targets, stats, strict=True)},
        shadows=_shadows(platform, totals),
        streams=streams_of(platform, totals),
        cache_bytes=platform.results.size_bytes if platform.results is not None else 0,
        tokens_expiring=platform.tokens.expiring(platform.settings.access.expiry_reminder_days * 86_400),
        spans=spans_of(platform, totals),
        swaps=_swaps(platform, totals),
        states=Counter(platform.reconciler.states().values()),
        memory_bytes=platform.reconciler.memory(),
        memory_budget_bytes=budget_bytes(platform.settings.inference.memory_budget, node_bytes()),
    )


def _shadows(platform: Platform, totals: Report | None) -> dict[tuple[str, int], Mapping[str, float]]:
    return {
        (model, int(version)): counters["shadow"]
        for model in platform.catalogue.targets()
        for version, counters in health_of(platform, model, totals).items()
        if "shadow" in counters
    }


def _swaps(platform: Platform, totals: Report | None) -> dict[str, int]:
    if totals is None:
        return dict(platform.catalogue.swaps)
    return {model: total["swaps"] for model, total in totals.items() if "swaps" in total}


def _allowed(platform: Platform, client: str) -> bool:
    return is_in(read_address(client), map(read_network, platform.settings.server.metrics_allow))
