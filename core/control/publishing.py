"""Connects a catalogue to the workers: each swap is published, each retirement waits for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from core.control.publisher import Publisher
from core.serving.catalogue import Catalogue, Share
from core.serving.deployment import Deployment
from core.serving.idle_model import IdleModel

log = structlog.get_logger(__name__)


def publish_swaps(catalogue: Catalogue, publisher: Publisher) -> Callable[[str], Awaitable[bool]]:
    """Publish every swap from now on. Answers a function that waits until all workers serve a model's last one."""
    sequences: dict[str, int] = {}

    def on_swap(model: str, shares: Sequence[Share], idle: IdleModel | None) -> None:
        versions = []
        for share in shares:
            target = share.served.target
            assert isinstance(target, Deployment)
            versions.append({**target.recipe, "weight": share.weight, "mode": share.mode})
            share.served.elsewhere = partial(publisher.released, target.recipe["key"])
        sequences[model] = publisher.publish(model, versions, None if idle is None else idle.to_json())

    async def applied(model: str) -> bool:
        done = await publisher.applied(model, sequences.get(model, 0))
        if not done:
            log.warning("deployment.not_everywhere", model=model, workers=publisher.behind(model))
        return done

    catalogue.on_swap = on_swap
    catalogue.on_refuse = publisher.refuse
    return applied
