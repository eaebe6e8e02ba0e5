"""The object graph of one server process, typed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

from starlette.requests import Request

from app.access import Access
from app.answer_book import AnswerBook
from app.external.oip_statistics import Statistics
from app.recorder import Recorder
from core.access.ip_rules import IpRules
from core.access.limits import RateLimiter
from core.access.tenants import Tenancy
from core.access.tokens import TokenIndex
from core.access.usage import UsageBook
from core.control.control import Control
from core.control.default_targets import Defaults
from core.control.derived_forms import DerivedForms
from core.control.host_log import HostLines, HostLogs
from core.control.imports import Imports
from core.control.live_samples import LiveSamples
from core.control.optimisations import OptimisationRuns
from core.control.samples import SampleBook
from core.control.served_pipelines import ServedPipelines
from core.control.uploads import Uploads
from core.control.validations import Validations
from core.database.session import Database
from core.metrics import Counts, ModelTraffic, StreamCounts
from core.serving.catalogue import Catalogue
from core.serving.result_cache import ResultStore
from core.settings import Settings
from core.store.artifacts import ArtifactStore


class Spans(Protocol):
    """What sends finished traces."""

    def counts(self) -> Mapping[str, int]:
        """What became of the spans so far, by outcome."""

    def close(self) -> None:
        """Send what waits, for a bounded time. Blocks."""


@dataclass(slots=True)
class Platform:
    """Everything that a request may need; built once by the lifespan."""

    settings: Settings
    database: Database
    access: Access
    tenants: Tenancy
    tokens: TokenIndex
    limiter: RateLimiter
    ip_rules: IpRules
    store: ArtifactStore
    uploads: Uploads
    samples: SampleBook
    live_samples: LiveSamples
    imports: Imports
    validations: Validations
    optimisations: OptimisationRuns
    derived: DerivedForms
    defaults: Defaults
    pipelines: ServedPipelines
    catalogue: Catalogue
    reconciler: Control
    answers: AnswerBook = field(default_factory=AnswerBook)
    """Those that are yet to be counted in the next three; `app.tallies` reads them when they are."""
    counts: Counts = field(default_factory=Counts)
    traffic: defaultdict[str, ModelTraffic] = field(default_factory=lambda: defaultdict(ModelTraffic))
    statistics: Statistics = field(default_factory=Statistics)
    """Of every loaded version, for the Open Inference Protocol."""
    stream_counts: StreamCounts = field(default_factory=StreamCounts)
    usage: UsageBook = field(default_factory=UsageBook)
    results: ResultStore | None = None
    """The answers that are kept; None where none are."""
    spans: Spans | None = None
    """What sends traces; None where requests are not traced."""
    spans_told: Mapping[str, int] = field(default_factory=dict)
    """Of a worker, what it has reported of that."""
    host_logs: Callable[[str], Awaitable[HostLines]] = field(default_factory=lambda: HostLogs().ask)
    """Answers what the hosts of a model have written last, by version; raises Unavailable."""
    node: str = "local"
    """This server's name among those on its database."""
    started_at: float = field(default_factory=time.time)
    leaving: bool = False
    """A stop was asked for: what is under way may still end, and answers without end are ended."""
    stopping: bool = False
    """Nothing new is begun."""
    recorder: Recorder = field(init=False)
    """How serving went; given by the lifespan, for it reads the platform itself."""

    def not_ready(self) -> dict[str, str]:
        """Models and pipelines that should answer and cannot, each with its state and reason."""
        return {**self.reconciler.not_ready(), **self.pipelines.not_ready()}


class LifespanState(TypedDict):
    """What the lifespan hands to every request's scope."""

    platform: Platform


def platform_of(request: Request) -> Platform:
    """The platform behind a request."""
    platform: Platform = request.scope["state"]["platform"]
    return platform
