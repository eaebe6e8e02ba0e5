"""The object graph of one server process, typed."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TypedDict

from starlette.requests import Request

from app.external.oip_statistics import Statistics
from core.access.limits import RateLimiter
from core.access.sessions import SessionService
from core.access.tokens import TokenIndex
from core.control.control import Control
from core.control.imports import Imports
from core.control.live_samples import LiveSamples
from core.control.optimisations import OptimisationRuns
from core.control.samples import SampleBook
from core.control.uploads import Uploads
from core.control.validations import Validations
from core.database.session import Database
from core.metrics import Counts, ModelTraffic
from core.serving.catalogue import Catalogue
from core.settings import Settings
from core.store.artifacts import ArtifactStore


@dataclass(slots=True)
class Platform:
    """Everything that a request may need; built once by the lifespan."""

    settings: Settings
    database: Database
    sessions: SessionService
    tokens: TokenIndex
    limiter: RateLimiter
    store: ArtifactStore
    uploads: Uploads
    samples: SampleBook
    live_samples: LiveSamples
    imports: Imports
    validations: Validations
    optimisations: OptimisationRuns
    catalogue: Catalogue
    reconciler: Control
    counts: Counts = field(default_factory=Counts)
    traffic: defaultdict[str, ModelTraffic] = field(default_factory=lambda: defaultdict(ModelTraffic))
    statistics: Statistics = field(default_factory=Statistics)
    """Of every loaded version, for the Open Inference Protocol."""
    in_flight: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Requests under way by token id, for `max_concurrency`."""
    started_at: float = field(default_factory=time.time)
    stopping: bool = False


class LifespanState(TypedDict):
    """What the lifespan hands to every request's scope."""

    platform: Platform


def platform_of(request: Request) -> Platform:
    """The platform behind a request."""
    platform: Platform = request.scope["state"]["platform"]
    return platform
