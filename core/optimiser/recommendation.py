"""From what trials have shown, what to do: a function of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.optimiser.candidate import Fidelity, Figures, Objective, TrialResult
from core.optimiser.space import must_be_judged

_LEAST_BYTES = 1 << 20
_ROUNDING = 1e-9
"""99 of 100 lose 0.01 and a little, in floating point."""
MIN_JUDGING = 20
"""With fewer judging items nothing lossy is chosen: one differing answer could not be told from a rate."""
MIN_GAIN = 0.03
"""Less than this is not worth another engine, however calm the machine."""
MAX_TIE = 0.05
"""Trials within the noise of the best are as good as it, and the one that loses least is taken; never further off
than this, or a noisy machine would give away what was found."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Which trial to follow, how much faster (or smaller) it is, and why this one; sentences for people."""

    trial: int
    gain: float
    reasons: tuple[str, ...]
    pareto: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As it is kept and shown."""
        return {
            "trial": self.trial,
            "gain": self.gain,
            "reasons": list(self.reasons),
            "pareto": list(self.pareto),
        }


def score(objective: Objective, figures: Figures) -> float:
    """The figure that the objective asks for, larger being better."""
    if objective == "latency":
        return 1 / figures.p50_ms
    return figures.throughput_per_s if objective == "throughput" else 1 / max(_LEAST_BYTES, figures.memory_bytes)


def judge(fidelity: Fidelity | None, tolerance: float, *, lossy: bool, synthetic: bool) -> str:
    """Why a variant may not be chosen; empty where it may. `fidelity` None where nothing was compared."""
    if lossy and synthetic:
        return "There are no samples to judge it by: upload some, and it can be chosen."
    if fidelity is None:
        return "Its answers could not be compared with the reference's."
    if lossy and fidelity.items < MIN_JUDGING:
        too_few = f"Only {fidelity.items} items judge it, and {MIN_JUDGING} are needed"
        return f"{too_few}: upload more samples, or search longer."
    if fidelity.loss > tolerance + _ROUNDING:
        return f"It loses {fidelity.loss:.2%}, and at most {tolerance:.2%} is allowed."
    return ""


def recommend(
    trials: Sequence[TrialResult], objective: Objective, noise: float, *, synthetic: bool = False
) -> Recommendation | None:
    """The best admissible trial, or the reference where none beats it by more than the noise.

    `noise` is how much the reference itself differed between repeats (0.1 is 10 %). None without a reference.
    """
    references = [trial for trial in trials if trial.reference and trial.figures]
    if not references:
        return None
    base = references[0]
    able = [trial for trial in trials if trial.status == "ok" and trial.figures and trial.speedup is not None]
    best = _least_lossy_of_the_best(able, base, noise)
    gain = _gain(best, base)
    needed = 1 + max(noise, MIN_GAIN)
    chosen = best if gain > needed else base
    return Recommendation(
        chosen.number,
        gain if chosen is best else 1.0,
        tuple(_reasons(chosen, base, best, gain, needed, noise, objective, trials, synthetic=synthetic)),
        tuple(pareto(trials)),
    )


def _least_lossy_of_the_best(able: Sequence[TrialResult], base: TrialResult, noise: float) -> TrialResult:
    most = max((_gain(trial, base) for trial in able), default=1.0)
    enough = most * (1 - min(noise, MAX_TIE))
    tied = [trial for trial in able if _gain(trial, base) >= enough]
    return min(tied, key=lambda trial: (_loss(trial), -_gain(trial, base)), default=base)


def _loss(trial: TrialResult) -> float:
    fidelity = trial.figures.fidelity if trial.figures else None
    return 0.0 if fidelity is None else max(0.0, fidelity.loss)


def _gain(trial: TrialResult, base: TrialResult) -> float:
    if trial is base:
        return 1.0
    return trial.speedup or 0.0


_UNITS: Mapping[Objective, str] = {
    "latency": "times as fast as the reference",
    "throughput": "times the reference's throughput",
    "memory": "times less memory than the reference",
}


def _reasons(
    chosen: TrialResult,
    base: TrialResult,
    best: TrialResult,
    gain: float,
    needed: float,
    noise: float,
    objective: Objective,
    trials: Sequence[TrialResult],
    *,
    synthetic: bool,
) -> list[str]:
    if chosen is base:
        reasons = ["The reference stays: nothing that may be chosen is better by more than the noise."]
        if best is not base:
            is_so = f"{best.candidate.label}, is {gain:.2f} {_UNITS[objective]}"
            reasons.append(f"The best other, {is_so}; {needed:.2f} is needed.")
    else:
        reasons = [f"{chosen.candidate.label} is {gain:.2f} {_UNITS[objective]}."]
        reasons += _fidelity_reason(chosen)
    reasons.append(f"Repeats of the reference differed by {noise:.0%} on this machine.")
    reasons += _better_but_rejected(chosen, base, trials, _UNITS[objective])
    if synthetic:
        reasons.append("There are no samples: inputs were random, so nothing lossy is chosen.")
    return reasons


def _fidelity_reason(chosen: TrialResult) -> list[str]:
    fidelity = chosen.figures.fidelity if chosen.figures else None
    if fidelity is None or not must_be_judged(chosen.candidate.variant):
        return []
    return [f"On {fidelity.items} judging items, {fidelity.loss:.2%} {fidelity.loss_label}."]


def _better_but_rejected(
    chosen: TrialResult, base: TrialResult, trials: Sequence[TrialResult], unit: str
) -> list[str]:
    least = _gain(chosen, base)
    rejected = [t for t in trials if t.status == "rejected" and t.speedup is not None and t.speedup > least]
    return [f"{t.candidate.label} is {t.speedup:.2f} {unit}, and was rejected. {t.reason}" for t in rejected[:3]]


def pareto(trials: Sequence[TrialResult]) -> list[int]:
    """The admissible trials that no other beats in latency, throughput and memory at once; by number."""
    able = [trial for trial in trials if trial.status == "ok" and trial.figures]
    return [trial.number for trial in able if not any(_beats(other, trial) for other in able)]


def _beats(one: TrialResult, other: TrialResult) -> bool:
    assert one.figures is not None
    assert other.figures is not None
    a, b = _axes(one.figures), _axes(other.figures)
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


def _axes(figures: Figures) -> tuple[float, float, float]:
    return 1 / figures.p50_ms, figures.throughput_per_s, 1 / max(1, figures.memory_bytes)
