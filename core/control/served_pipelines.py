"""Pipelines in service in this process: what the database desires, put into the catalogue.

Each process that answers calls reads them for itself, for there is nothing to load: a plan is made of the
definition and of what is known of its models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from core.control.pipelines import plan_for
from core.database.repositories.pipelines import Pipelines
from core.database.session import Database
from core.database.tables import PipelineDeployment
from core.errors import InvalidPipeline
from core.pipelines.run import Call
from core.pipelines.target import Pipeline, PipelineOptions
from core.serving.catalogue import Catalogue, Served, Share
from core.tasks.base import MediaLimits

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Desired:
    """A desired pipeline as its row says it; `origin` tells it from an earlier one of the same name."""

    name: str
    version: int
    generation: int
    origin: str
    options: PipelineOptions

    @classmethod
    def of(cls, row: PipelineDeployment) -> Desired:
        """Read a row, which comes with its pipeline."""
        origin = f"{row.pipeline_id} {row.pipeline.created_at.isoformat()}"
        return cls(row.pipeline.name, row.version, row.generation, origin, PipelineOptions(**row.spec))


@dataclass(frozen=True, slots=True)
class State:
    """How one pipeline is: `pipeline` is None where its plan cannot be made, and `reason` says why."""

    desired: Desired
    pipeline: Pipeline | None
    reason: str = ""


class ServedPipelines:
    """Brought up to date by `refresh`. Belongs to one event loop; `call` is how models are called."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        threads: ThreadPoolExecutor,
        limits: MediaLimits,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._threads = threads
        self._limits = limits
        self._states: dict[str, State] = {}
        self._turn = asyncio.Lock()
        self.call: Call | None = None

    async def refresh(self) -> None:
        """Serve what is desired now. Raises Unavailable, and changes nothing then."""
        async with self._turn, self._database.session() as session:
            rows = await Pipelines(session).desired()
            states = {}
            for row in rows:
                desired = Desired.of(row)
                before = self._states.get(desired.name)
                if before is not None and before.desired == desired and before.pipeline is not None:
                    states[desired.name] = before
                    continue
                version = await Pipelines(session).version(row.pipeline_id, row.version)
                try:
                    plan = await plan_for(session, version.definition if version is not None else "")
                except InvalidPipeline as error:
                    states[desired.name] = State(desired, None, error.message)
                    continue
                pipeline = Pipeline(
                    desired.name,
                    desired.version,
                    plan,
                    self._catalogue,
                    self._threads,
                    desired.options,
                    self._limits,
                    self.call,
                )
                states[desired.name] = State(desired, pipeline)
            self._apply(states)

    def _apply(self, states: Mapping[str, State]) -> None:
        before, self._states = self._states, dict(states)
        self._catalogue.expected_too = {name: (state.desired.version,) for name, state in states.items()}
        for name in before.keys() - states.keys():
            self._catalogue.swap(name, [])
            log.info("pipeline.stopped", pipeline=name)
        for name, state in states.items():
            if state == before.get(name):
                continue
            if state.pipeline is None:
                log.warning("pipeline.failed", pipeline=name, version=state.desired.version, reason=state.reason)
                continue  # what served before keeps serving
            self._catalogue.swap(name, [Share(Served(state.pipeline))])
            log.info("pipeline.serving", pipeline=name, version=state.desired.version)

    def has(self, name: str) -> bool:
        """Whether a name is a pipeline's."""
        return name in self._states

    def state(self, name: str) -> tuple[str, str]:
        """`serving`, `waiting` for its models or `failed`, and why; `stopped` where it should not be served."""
        state = self._states.get(name)
        if state is None:
            return "stopped", ""
        if state.pipeline is None:
            return "failed", state.reason
        missing = state.pipeline.missing()
        return ("waiting", f"not in service: {', '.join(missing)}") if missing else ("serving", "")

    def generation(self, name: str) -> int:
        """The desired generation that `state` answers to; 0 where it is none."""
        state = self._states.get(name)
        return 0 if state is None else state.desired.generation

    def not_ready(self) -> dict[str, str]:
        """Pipelines that should answer and cannot, each with its state and reason."""
        found = {name: self.state(name) for name in self._states}
        return {name: f"{state}: {reason}" for name, (state, reason) in found.items() if state != "serving"}
