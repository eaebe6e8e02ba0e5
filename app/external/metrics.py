"""`/metrics`, for the configured scrapers only."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter

from starlette.requests import Request
from starlette.responses import Response

from app.errors import respond
from app.external.metrics_text import CONTENT_TYPE, Observed, render
from app.state import Platform, platform_of
from core.errors import Forbidden
from core.serving.deployment import Deployment


async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    platform = platform_of(request)
    if not _allowed(platform, request.client.host if request.client else ""):
        return respond(request, Forbidden("This address may not read the metrics."))
    observed = await observe(platform)
    body = await asyncio.to_thread(render, platform.counts, observed)
    return Response(body, media_type=CONTENT_TYPE)


async def observe(platform: Platform) -> Observed:
    """What the versions in service hold now; all are asked at once, for some answer from another process."""
    targets = [
        target
        for targets in platform.catalogue.targets().values()
        for target in targets
        if isinstance(target, Deployment)
    ]
    stats = await asyncio.gather(*(target.stats() for target in targets))
    return Observed(
        versions={(one.model, one.version): found for one, found in zip(targets, stats, strict=True)},
        swaps=dict(platform.catalogue.swaps),
        states=Counter(platform.reconciler.states().values()),
    )


def _allowed(platform: Platform, client: str) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    networks = platform.settings.server.metrics_allow
    return any(mapped in ipaddress.ip_network(network, strict=False) for network in networks)
