"""What should be served, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TrafficShare:
    """One version's part: `weight` is relative to the other live ones; `mode` is live or shadow."""

    version: int
    weight: float = 1.0
    mode: str = "live"


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """How long a version that is new is watched, in seconds, and what makes it go back."""

    window_s: float = 60.0
    max_error_rate: float = 0.05
    max_latency_ratio: float = 2.0
    min_requests: int = 20


@dataclass(frozen=True, slots=True)
class DesiredDeployment:
    """The desired state of one model, as its row says it. Times in milliseconds, sizes in items."""

    model_id: int
    model: str
    generation: int
    running: bool
    traffic: tuple[TrafficShare, ...] = ()
    engine: str = "auto"
    device: str = "cpu"
    precision: str | None = None
    """What the engine is to compute in; None leaves it to the engine, or with `auto` to a search."""
    hint: str | None = None
    """`latency` or `throughput`, for an engine that can be told; None leaves it to the engine."""
    instances: int = 1
    max_instances: int | None = None
    """Up to how many slots follow the load; None for as many as there are cores, on `cpu`."""
    max_batch: int = 32
    max_tokens: int | None = None
    """In one batch of items that differ in length, padding counted; None for what suits the device."""
    max_delay_ms: float = 0.0
    queue_size: int = 256
    timeout_ms: int = 30_000
    isolation: str = "thread"
    cache: bool | None = None
    """Whether answers are kept; None leaves it to the task."""
    idle_unload_s: float | None = None
    """Without a request for so long, it leaves memory; None never does."""
    pinned: bool = False
    """Never unloaded for being idle, or to make room."""
    watch: WatchLimits | None = None
    optimised: Mapping[str, int] = field(default_factory=dict, hash=False)
    """With `engine: auto`, by version the search whose recommendation is followed."""
    rolled_back: str = ""
    """Why the platform itself went back to this; empty where somebody asked for it."""
    origin: str = ""
    """Tells a model from another that had its name, and its id, before it was deleted."""
    spec: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """As the row says it, so that it can be desired again."""

    @property
    def engine_extra(self) -> dict[str, str]:
        """The options of the engine that are chosen."""
        both = {"precision": self.precision, "hint": self.hint}
        return {name: word for name, word in both.items() if word is not None}

    @property
    def load_key(self) -> tuple[Any, ...]:
        """All that a loaded version depends on: while it stays the same, the version need not be loaded again."""
        return (
            self.origin,
            self.engine,
            self.device,
            self.precision,
            self.hint,
            self.instances,
            self.max_instances,
            self.max_batch,
            self.max_tokens,
            self.max_delay_ms,
            self.queue_size,
            self.timeout_ms,
            self.isolation,
            self.cache,
            tuple(sorted(self.optimised.items())),
        )

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions that must be in memory, live and shadow."""
        return tuple(share.version for share in self.traffic)

    @property
    def live_versions(self) -> tuple[int, ...]:
        """The versions that answer callers."""
        return tuple(share.version for share in self.traffic if share.mode == "live")


def desired_from_row(
    model_id: int, model: str, generation: int, running: bool, spec: Mapping[str, Any], origin: str = ""
) -> DesiredDeployment:
    """Read the row's `spec`; keys that this release does not know are left alone."""
    shares = tuple(
        TrafficShare(int(s["version"]), float(s.get("weight", 1.0)), str(s.get("mode", "live")))
        for s in spec.get("traffic", ())
    )
    names = (
        "engine",
        "device",
        "precision",
        "hint",
        "instances",
        "max_instances",
        "max_batch",
        "max_tokens",
        "max_delay_ms",
        "queue_size",
        "timeout_ms",
        "isolation",
        "cache",
        "idle_unload_s",
        "pinned",
    )
    chosen = {name: spec[name] for name in names if spec.get(name) is not None}
    watch = WatchLimits(**spec["watch"]) if spec.get("watch") else None
    rolled_back = str(spec.get("rolled_back") or "")
    return DesiredDeployment(
        model_id,
        model,
        generation,
        running,
        shares,
        **chosen,
        watch=watch,
        optimised=dict(spec.get("optimised") or {}),
        rolled_back=rolled_back,
        origin=origin,
        spec=spec,
    )
