"""Searches for the best engine, precision and settings of a version."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment

Status = Literal["queued", "running", "done", "failed", "cancelled"]


class OptimisePost(Body):
    """What to search for; everything has a default."""

    objective: Literal["latency", "throughput", "memory"] = Field(
        "latency", description="Time of one item, items a second, or resident memory."
    )
    max_accuracy_loss: float = Field(
        0.01,
        ge=0,
        le=1,
        description="How much may be lost: of the labelled samples' accuracy, else the part of top answers that "
        "differ, else one less the mean cosine.",
    )
    budget_s: float = Field(
        180, ge=5, le=86_400, description="Seconds for preparing the samples and searching, together."
    )
    engines: list[str] | None = Field(None, max_length=16, description="Only these engines.")
    precisions: list[Literal["fp32", "bf16", "fp16", "int8"]] | None = Field(
        None, max_length=4, description="Only these precisions."
    )
    apply: bool = Field(
        True,
        description="Let deployments with `engine: auto` follow what is found, at once. Without it, the search "
        "only recommends; `PUT …/recommendation` applies it later.",
    )


class OptimisationAccepted(Answer):
    """The search is queued."""

    id: int
    status: Status


class RecommendationPut(Body):
    """Which recommendation to follow."""

    search: int | None = Field(
        None, ge=1, le=2**31 - 1, description="The search; the newest with one if left out."
    )


class RecommendationFollowed(Answer):
    """What `engine: auto` follows from now on."""

    search: int | None = Field(description="The search; null for the version as uploaded.")
    generation: int | None = Field(
        description="Of the deployment that was changed by it; null where none had the version in service with "
        "`engine: auto` in another form."
    )


class ProgressAnswer(Answer):
    """How far a search is."""

    phase: str = Field("", examples=["trying openvino bf16, 2 threads, 1 slot, batches of 1"])
    done: int = Field(0, description="Trials that have ended.")
    of: int = Field(0, description="Trials there will be at most, as far as is known.")
    best: str = ""
    speedup: float | None = None


class FidelityAnswer(Answer):
    """How closely the answers follow the reference's."""

    items: int
    cosine: float
    max_error: float
    top1_agreement: float | None = None
    accuracy: float | None = None
    reference_accuracy: float | None = None


class FiguresAnswer(Answer):
    """What a trial measured."""

    p50_ms: float
    p99_ms: float
    throughput_per_s: float
    memory_bytes: int
    load_s: float
    fidelity: FidelityAnswer | None = None


class CandidateAnswer(Answer):
    """One way to run the model."""

    engine: str
    conversion: str
    precision: str
    device: str
    extra: dict[str, Any]
    threads: int
    slots: int
    batch: int


class TrialAnswer(Answer):
    """One row of the table."""

    number: int
    label: str
    candidate: CandidateAnswer
    status: Literal["ok", "failed", "rejected", "slower"]
    reason: str = ""
    figures: FiguresAnswer | None = None
    loss: float | None = None
    speedup: float | None = Field(None, description="Against the reference run next to it, by the objective.")
    reference: bool = False
    seconds: float = 0.0
    notes: dict[str, Any] = Field(default_factory=dict)


class RecommendationAnswer(Answer):
    """What to do, and why."""

    trial: int = Field(description="Number of the trial to follow.")
    gain: float = Field(description="How many times better than the reference.")
    reasons: list[str]
    pareto: list[int] = Field(description="Trials that no other beats in latency, throughput and memory at once.")
    noise: float = Field(description="How much repeats of the reference differed; 0.1 is 10 %.")
    unfinished: bool = Field(description="The time was up before everything had been tried.")
    samples: dict[str, Any]
    use: dict[str, Any]


class OptimisationAnswer(Answer):
    """A search and its trials."""

    id: int
    status: Status
    reason: str = ""
    wanted: dict[str, Any]
    progress: ProgressAnswer
    trials: list[TrialAnswer]
    recommendation: RecommendationAnswer | None = None
    follow: bool = Field(
        True, description="Whether deployments with `engine: auto` are to follow it; of several the newest counts."
    )
    stale: str | None = Field(
        None, description="Why the recommendation is not followed any more, where it is not."
    )
    machine: dict[str, Any]
    created_by: str
    created_at: Moment
    started_at: Moment | None = None
    ended_at: Moment | None = None
