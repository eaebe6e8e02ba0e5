"""Deployments: desired and observed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Answer, Body, Moment

State = Literal["pending", "loading", "warming", "serving", "draining", "idle", "stopped", "failed"]


class TrafficPart(Body):
    """One version's part of the traffic."""

    version: int = Field(ge=1)
    weight: float = Field(1.0, gt=0, le=1_000_000, allow_inf_nan=False)
    mode: Literal["live", "shadow"] = "live"


class Watch(Body):
    """After a rollout, what makes a version that did not answer before go back by itself."""

    window_s: float = Field(60, ge=1, le=86_400, description="How long it is watched.")
    max_error_rate: float = Field(0.05, ge=0, lt=1, description="Part of its requests that may fail.")
    max_latency_ratio: float = Field(
        2.0, gt=1, le=1000, description="Its mean latency over that of the versions that answered before."
    )
    min_requests: int = Field(20, ge=1, le=1_000_000, description="Requests it must answer to be judged.")


class SampleLive(Body):
    """Keep some live inputs as samples, each with the same chance."""

    rate: float = Field(0.01, gt=0, le=1, description="Part of the requests that are looked at.")
    max_count: int = Field(
        200, ge=1, le=100_000, description="Live samples kept at most; later ones replace some."
    )


class DeploymentPut(Body):
    """What should be served. Give `version`, or `traffic` for several; the rest has defaults."""

    version: int | None = Field(None, ge=1, examples=[1])
    traffic: list[TrafficPart] | None = Field(None, min_length=1, max_length=16)
    engine: str = Field("auto", max_length=32, description="An engine's name, or `auto`.")
    device: str = Field("cpu", max_length=32, pattern=r"^[a-z]+(:\d+)?$", description="`cpu`, `cuda:0` …")
    precision: Literal["fp32", "bf16", "fp16", "int8"] | None = Field(
        None, description="What the engine that is named computes in; null leaves it to the engine."
    )
    hint: Literal["latency", "throughput"] | None = Field(
        None, description="What the engine `openvino` divides its threads for; null leaves it to the engine."
    )
    instances: int = Field(1, ge=1, le=64, description="At least so many batches may run side by side.")
    max_instances: int | None = Field(
        None, ge=1, le=64, description="At most so many, as the load asks; null for one a core on `cpu`."
    )
    max_batch: int | None = Field(None, ge=1, le=4096, description="Items in one batch at most.")
    max_tokens: int | None = Field(
        None, ge=1, le=10_000_000, description="Tokens in one batch of texts at most, padding counted."
    )
    max_delay_ms: float | None = Field(None, ge=0, le=10_000, description="Wait this long for a fuller batch.")
    queue_size: int | None = Field(None, ge=1, le=1_000_000, description="Items that may wait.")
    timeout_ms: int | None = Field(None, ge=1, le=3_600_000, description="Deadline of a request.")
    isolation: Literal["thread", "process"] = "thread"
    cache: bool | None = Field(
        None, description="Keep answers and give them again for the same content; null does so for embeddings."
    )
    idle_unload_s: float | None = Field(
        None, ge=1, le=31_536_000, description="Leave memory after so long without a request; null never does."
    )
    pinned: bool = Field(False, description="Stay in memory whatever else wants its room.")
    watch: Watch | None = Field(None, description="Roll back by itself; null never does.")
    sample_live: SampleLive | None = Field(None, description="Keep samples of live inputs; null keeps none.")

    @model_validator(mode="after")
    def _one_of_version_and_traffic(self) -> Self:
        if (self.version is None) == (self.traffic is None):
            raise ValueError("give either `version` or `traffic`")
        if self.traffic is not None:
            versions = [part.version for part in self.traffic]
            if len(set(versions)) != len(versions):
                raise ValueError("a version may appear once in `traffic`")
            if not any(part.mode == "live" for part in self.traffic):
                raise ValueError("at least one version in `traffic` must be live")
        return self

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.max_instances is not None and self.max_instances < self.instances:
            raise ValueError("`max_instances` may not be less than `instances`")
        return self

    @model_validator(mode="after")
    def _pinned_or_idle(self) -> Self:
        if self.pinned and self.idle_unload_s is not None:
            raise ValueError("what is `pinned` stays in memory: leave out `idle_unload_s`")
        return self


class DeploymentAccepted(Answer):
    """The change is written down; the state says how far it is."""

    generation: int
    state: State


class Desired(Answer):
    """What was asked for."""

    generation: int
    running: bool
    traffic: list[TrafficPart]
    engine: str
    device: str
    precision: str | None = None
    hint: str | None = None
    instances: int
    max_instances: int | None = None
    max_batch: int
    max_tokens: int | None = None
    max_delay_ms: float
    queue_size: int
    timeout_ms: int
    isolation: str
    cache: bool | None = None
    idle_unload_s: float | None = None
    pinned: bool = False
    watch: Watch | None = None
    sample_live: SampleLive | None = None
    optimised: dict[str, int] | None = Field(
        None, description="With `engine: auto`, by version the search whose recommendation is followed."
    )
    rolled_back: str | None = Field(None, description="Why the platform itself went back to this.")
    updated_by: str
    updated_at: Moment


class QueueAnswer(Answer):
    """Items waiting, and how many may."""

    depth: int
    capacity: int


class SlotsAnswer(Answer):
    """Batches side by side, of all live versions."""

    now: int = Field(description="How many may run side by side now, as the load is.")
    busy: int
    most: int = Field(description="How many they may become.")
    threads: dict[str, int] = Field(
        description="How many batches ran with so many threads; 0 where the engine decides."
    )


class ShadowAnswer(Answer):
    """How a shadow's answers compare with those that callers got. Latencies are means, in milliseconds."""

    compared: int
    agreed: int
    agreement: float | None = Field(description="The part of those compared that agreed.")
    dropped: int = Field(description="Copies that were not made, or not run, for want of room.")
    errors: int
    live_ms: float | None
    shadow_ms: float | None
    max_abs_difference: float = Field(description="The largest difference of any two tensors' values.")


VersionState = Literal["serving", "shadow", "loading", "warming", "standby", "draining", "idle"]


class ObservedVersion(Answer):
    """A version in memory, or on its way there. Counts are since it was loaded, of failures its own alone."""

    version: int
    state: VersionState
    weight: float | None = None
    requests: int | None = None
    errors: int | None = None
    mean_ms: float | None = Field(None, description="Latency of the requests that succeeded.")
    restarts: int | None = Field(None, description="How often its process died and was started again.")
    memory_bytes: int | None = Field(None, description="What it takes; where it is idle, what it took.")
    gpu_memory_bytes: int | None = Field(None, description="What its process takes on GPUs, where NVML tells.")
    shadow: ShadowAnswer | None = None


class ElsewhereAnswer(Answer):
    """What another server observes. `alive` is false where it has not been heard of for 20 s."""

    node: str
    alive: bool
    generation: int
    state: State
    reason: str
    updated_at: Moment


class Observed(Answer):
    """What is. `generation` is the desired one that this state answers to."""

    generation: int
    state: State
    reason: str
    versions: list[ObservedVersion]
    queue: QueueAnswer
    slots: SlotsAnswer
    batch_sizes: dict[str, int] = Field(description="How many batches of each size, in items, were run.")
    why_not_batching: str | None = None
    memory_bytes: int = Field(0, description="Host memory of all versions that are in it.")
    updated_at: Moment | None = None
    node: str = Field("local", description="The server that this is observed on: the one that answers.")
    elsewhere: list[ElsewhereAnswer] = Field(
        default_factory=list, description="What the other servers on this database have told of it last."
    )


class DeploymentAnswer(Answer):
    """Desired and observed, side by side."""

    desired: Desired
    observed: Observed


class LogLineAnswer(Answer):
    """One line of a host's log."""

    at: Moment
    text: str = Field(description="At most 1000 characters; control characters are left out.")
    by: Literal["host", "server"] = Field(description="Who says it: the process itself, or the server about it.")


class HostLogAnswer(Answer):
    """What the host of one version wrote last."""

    version: int
    lines: list[LogLineAnswer]


class LogsAnswer(Answer):
    """The logs of a model's host processes; versions that run in the server's own process have none."""

    versions: list[HostLogAnswer]
