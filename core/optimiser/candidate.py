"""One way to run a model, and what trying it has shown: values, made of JSON's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Objective = Literal["latency", "throughput", "memory"]
MIN_LABELLED = 50
"""With fewer labelled items, accuracy tells less than how many of all answers agree."""
Status = Literal["ok", "failed", "rejected", "slower"]


@dataclass(frozen=True, slots=True)
class Variant:
    """What decides a model's answers: the engine, the conversion before it, and the engine's own options.

    `conversion` is empty for the artifact as it was uploaded; `precision` says what it computes in.
    """

    engine: str
    conversion: str = ""
    precision: str = "fp32"
    extra: tuple[tuple[str, Any], ...] = ()
    device: str = "cpu"

    @property
    def label(self) -> str:
        """For people: `openvino bf16`, `onnx int8 (int8-static)`."""
        after = f" ({self.conversion})" if self.conversion else ""
        on = "" if self.device == "cpu" else f" on {self.device}"
        provider = dict(self.extra).get("provider")
        engine = f"{self.engine} with {provider}," if provider else self.engine
        return f"{engine} {self.precision}{after}{on}"


@dataclass(frozen=True, slots=True)
class Setting:
    """How a variant is driven: threads inside a run, runs side by side, items in a batch."""

    threads: int
    slots: int = 1
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant with a setting: what one trial tries."""

    variant: Variant
    setting: Setting

    @property
    def extra(self) -> dict[str, Any]:
        """What the engine is told: the variant's own options, and what OpenVINO needs to run side by side."""
        extra = dict(self.variant.extra)
        if self.variant.engine == "openvino" and self.setting.slots > 1:
            extra |= {"streams": self.setting.slots, "hint": "throughput"}
        return extra

    @property
    def label(self) -> str:
        """For people: `openvino bf16, 2 threads, 1 slot, batches of 1`."""
        s = self.setting
        threads = f"{s.threads} thread{'s' * (s.threads != 1)}"
        return f"{self.variant.label}, {threads}, {s.slots} slot{'s' * (s.slots != 1)}, batches of {s.batch}"

    def to_json(self) -> dict[str, Any]:
        """As it is kept and shown."""
        return {**asdict(self.variant), "extra": dict(self.variant.extra), **asdict(self.setting)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Candidate:
        """The inverse of `to_json`."""
        extra = tuple(sorted(dict(value["extra"]).items()))
        variant = Variant(value["engine"], value["conversion"], value["precision"], extra, value["device"])
        return cls(variant, Setting(int(value["threads"]), int(value["slots"]), int(value["batch"])))


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How closely a variant's answers follow the reference's, over `items` judging items.

    `cosine` is the mean over items of the cosine between outputs, flattened, of the output that follows worst;
    `max_error` the largest absolute difference of one number; `top1_agreement` the part of items with the same
    largest class, where the answers are classes; `accuracy` the part of labelled items answered rightly.
    """

    items: int
    cosine: float
    max_error: float
    top1_agreement: float | None = None
    accuracy: float | None = None
    reference_accuracy: float | None = None
    labelled: int = 0

    @property
    def by_labels(self) -> bool:
        """Whether there are labels enough, and right ones: the reference itself must agree with most of them."""
        return self.labelled >= MIN_LABELLED and (self.reference_accuracy or 0.0) > 0.5

    @property
    def loss(self) -> float:
        """What `max_accuracy_loss` bounds: accuracy lost where there are labels, else the part of top answers that
        differ, else one less the cosine.
        """
        if self.by_labels:
            return max(0.0, (self.reference_accuracy or 0.0) - (self.accuracy or 0.0))
        if self.top1_agreement is not None:
            return 1 - self.top1_agreement
        return 1 - self.cosine

    @property
    def loss_label(self) -> str:
        """What `loss` is, for a sentence."""
        if self.by_labels:
            return "of the labelled samples' accuracy lost"
        return "of the top answers differ" if self.top1_agreement is not None else "lost in cosine similarity"


@dataclass(frozen=True, slots=True)
class Figures:
    """What a trial measured: times of one batch in milliseconds, items a second over all slots, bytes, seconds."""

    p50_ms: float
    p99_ms: float
    throughput_per_s: float
    memory_bytes: int
    load_s: float
    fidelity: Fidelity | None = None


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One row of the table. `reason` says why it is not `ok`: it failed, was rejected, or was stopped as slower.

    `speedup` is against the reference run next to it in time, by the objective's figure.
    """

    number: int
    candidate: Candidate
    status: Status
    reason: str = ""
    figures: Figures | None = None
    speedup: float | None = None
    reference: bool = False
    seconds: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is kept and shown."""
        return {
            "number": self.number,
            "candidate": self.candidate.to_json(),
            "label": self.candidate.label,
            "status": self.status,
            "reason": self.reason,
            "figures": asdict(self.figures) if self.figures else None,
            "loss": self.figures.fidelity.loss if self.figures and self.figures.fidelity else None,
            "speedup": self.speedup,
            "reference": self.reference,
            "seconds": self.seconds,
            "notes": dict(self.notes),
        }


def figures_from_json(value: Mapping[str, Any]) -> Figures:
    """The inverse of `asdict`."""
    fidelity = Fidelity(**value["fidelity"]) if value.get("fidelity") else None
    return Figures(**{**value, "fidelity": fidelity})
