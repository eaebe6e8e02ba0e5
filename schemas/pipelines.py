"""Pipelines: definitions, versions, deployments."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment

PipelineState = Literal["serving", "waiting", "failed", "pending", "stopped"]


class ProblemAnswer(Answer):
    """One thing to mend in a definition."""

    line: int | None = Field(description="From 1; null where the whole of it is meant.")
    where: str = Field(description="The part, as `nodes.crop.inputs.box`.")
    message: str


class PortAnswer(Answer):
    """An input or an output, and its type."""

    name: str
    type: str
    required: bool | None = Field(None, description="Of an input, whether it has no default.")


class NodeModelAnswer(Answer):
    """A model that a node calls."""

    model: str
    version: int | None = None


class PlanAnswer(Answer):
    """What a definition says once it is checked."""

    description: str
    modality: str
    inputs: list[PortAnswer]
    outputs: list[PortAnswer]
    models: list[NodeModelAnswer]


class CheckedAnswer(Answer):
    """Whether a definition can be accepted; `plan` where it can."""

    ok: bool
    problems: list[ProblemAnswer]
    plan: PlanAnswer | None = None


class PipelineAnswer(Answer):
    """A pipeline, with its newest version's number and its state in service."""

    name: str
    description: str
    latest_version: int
    state: PipelineState
    created_by: str
    created_at: Moment
    updated_at: Moment


class PipelineVersionAnswer(Answer):
    """One version; it never changes."""

    version: int
    definition: str = Field(description="The YAML as it was uploaded.")
    created_by: str
    created_at: Moment


class PipelineAddedAnswer(Answer):
    """A pipeline and the version that was added."""

    pipeline: PipelineAnswer
    version: PipelineVersionAnswer
    plan: PlanAnswer


class PipelineDetailAnswer(PipelineAnswer):
    """A pipeline with all its versions, newest first."""

    versions: list[PipelineVersionAnswer]


class PipelineDeploymentPut(Body):
    """Which version answers."""

    version: int = Field(ge=1, le=2**31 - 1, examples=[1])
    timeout_ms: int = Field(30_000, ge=1, le=3_600_000, description="Deadline of a request.")
    queue_size: int = Field(32, ge=1, le=10_000, description="Items under way at once, in each worker.")


class PipelineAccepted(Answer):
    """The change is written down; each worker follows it within milliseconds."""

    generation: int
    state: PipelineState


class PipelineDesired(Answer):
    """What was asked for."""

    generation: int
    running: bool
    version: int
    timeout_ms: int
    queue_size: int
    updated_by: str
    updated_at: Moment


class PipelineObserved(Answer):
    """What is, in the worker that answers."""

    generation: int
    state: PipelineState
    reason: str


class PipelineDeploymentAnswer(Answer):
    """Desired and observed, side by side."""

    desired: PipelineDesired
    observed: PipelineObserved
