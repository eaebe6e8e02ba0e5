"""When a version that is new goes back by itself, as forms have it: parts in percent."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from schemas.deployments import Watch

_USUAL: Final = Watch.model_validate({})


class WatchForm(BaseModel):
    """The limits of schemas.deployments.Watch. What is empty is as usual; without the tick nothing is watched."""

    go_back: bool = False
    window_s: float = Field(_USUAL.window_s, ge=1, le=86_400)
    error_percent: float = Field(_USUAL.max_error_rate * 100, ge=0, lt=100)
    latency_ratio: float = Field(_USUAL.max_latency_ratio, gt=1, le=1000)
    min_requests: int = Field(_USUAL.min_requests, ge=1, le=1_000_000)

    def limits(self) -> dict[str, Any] | None:
        """As a deployment keeps it."""
        if not self.go_back:
            return None
        return Watch(
            window_s=self.window_s,
            max_error_rate=round(self.error_percent / 100, 9),
            max_latency_ratio=self.latency_ratio,
            min_requests=self.min_requests,
        ).model_dump()
