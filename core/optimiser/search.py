"""Goes through what is worth trying within a budget of time, and ends with a recommendation.

The reference is measured first, and again between the others: the machine's speed drifts, so every trial is held
against the reference next to it, and how much the repeats differ is the noise that a gain has to exceed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol

from core.errors import ConversionFailed, PlatformError, TrialFailed, Unprocessable
from core.optimiser import space
from core.optimiser.candidate import Candidate, Figures, Objective, Setting, Status, TrialResult, Variant
from core.optimiser.recommendation import Recommendation, judge, recommend, score
from core.optimiser.trial import DEFAULT_LIMITS, StoppedAsSlower, TrialJob, TrialLimits, run_trial
from core.tasks.vectors import Pooled

REFERENCE_EVERY: Final = 3
STOP_AT: Final = 3.0
"""A candidate so many times slower than the best so far is stopped early."""
BEST_VARIANTS: Final = 2
"""Of so many variants, other settings are tried."""
KEPT_FOR_SETTINGS: Final = 5
"""One part in five of the time is kept for them: threads and batches gain as much as another precision does."""
SPARE_S: Final = 4.0
"""With less time than that left, nothing more is begun."""
JUDGING: Final = 8
"""Answering the judging inputs may take this part of the search's time: one in eight."""
SLOWER_JUDGING: Final = 2
"""A candidate may take so much longer than the reference to answer them."""
LEAST_S: Final = 2.0
"""Neither judging nor a trial is given less time than that."""
REFERENCE_S: Final = 30.0
"""The reference has so much time at least, however little there is: without it nothing can be said."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: the objective, how much may be lost, seconds to search, and what may be used."""

    objective: Objective = "latency"
    max_accuracy_loss: float = 0.01
    budget_s: float = 180.0
    engines: Collection[str] = ()
    precisions: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """The model: its file and format, whether it batches, and the judging inputs in files.

    `classes` says that its answers are classes; `labels` the true class of each item of each file of `feeds`;
    `pooled` how its answers, vectors, are made of its outputs.
    """

    artifact: Path
    format: str
    feeds: Sequence[Path]
    outputs: Path
    batchable: bool = True
    max_batch: int = 32
    classes: bool = False
    labels: Sequence[Sequence[int | None]] = ()
    pooled: Pooled | None = None
    synthetic: bool = False
    told: Mapping[str, Any] = field(default_factory=dict)
    """What its engine is told besides; its converted forms' are not."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search ends with. `unfinished` says that the time was up before everything had been tried; `judged`
    how many files of judging inputs the reference answered in the time and room for that.
    """

    trials: tuple[TrialResult, ...]
    recommendation: Recommendation | None
    noise: float
    unfinished: bool = False
    judged: int = 0


class Convert(Protocol):
    """Makes, or finds, the model's converted form."""

    def __call__(self, conversion: str, timeout_s: float) -> Awaitable[tuple[Path, Mapping[str, Any]]]:
        """The converted file, and how it was made. Raises ConversionFailed."""


@dataclass(slots=True)
class Progress:
    """How far it is: what is being done now, for people; trials done, and trials there will be at most."""

    phase: str = ""
    done: int = 0
    of: int = 0
    best: str = ""
    speedup: float | None = None


@dataclass(slots=True)
class Search:
    """One search; `run` once. `on_change` is called with every step of `progress` and every new trial.

    The budget counts from `began` on, in seconds of `time.monotonic()`; left out, from `run` on.
    """

    subject: Subject
    wanted: Wanted
    here: space.Here
    convert: Convert
    on_change: Callable[[], None] = lambda: None
    limits: TrialLimits = DEFAULT_LIMITS
    seconds: float = 2.0
    began: float | None = None
    more: Sequence[Variant] = ()
    """Tried after the usual ones."""
    trials: list[TrialResult] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    _until: float = 0.0
    _kept_s: float = 0.0
    _out_of_time: bool = False
    _feeds: Sequence[Path] = ()
    _base: Figures | None = None
    _bases: list[Figures] = field(default_factory=list)
    _since_base: int = 0
    _artifacts: dict[str, tuple[Path, Mapping[str, Any]] | ConversionFailed] = field(default_factory=dict)

    async def run(self) -> Found:
        """Search until all is tried or the time is up. Raises Unprocessable where the reference itself fails."""
        self._until = (time.monotonic() if self.began is None else self.began) + self.wanted.budget_s
        self._feeds = self.subject.feeds
        variants = [
            *space.variants(self.subject.format, self.here, self.wanted.engines, self.wanted.precisions),
            *self.more,
        ]
        self.progress.of = len(variants) + 2
        await self._measure_reference()
        await self._repeat_reference()
        self._kept_s = self._for_settings_s
        unfinished = not await self._try_all(
            [space.candidate(variant, self.wanted.objective, self.here.cores) for variant in variants]
        )
        self._kept_s = 0.0
        settings = [Candidate(one, setting) for one in self._best_variants() for setting in self._settings(one)]
        self.progress.of += len(settings)
        unfinished |= not await self._try_all(settings, compare=False)
        await self._confirm()
        noise = self.noise
        found = recommend(self.trials, self.wanted.objective, noise, synthetic=self.subject.synthetic)
        return Found(tuple(self.trials), found, noise, unfinished or self._out_of_time, len(self._feeds))

    @property
    def noise(self) -> float:
        """How much the reference differed from one repeat to the next: the median ratio, less one.

        Not over all repeats: a machine that slows down for minutes does so for the trials between them as well.
        """
        scores = [self._score(base) for base in self._bases]
        ratios = [max(a, b) / min(a, b) for a, b in pairwise(scores)]
        return median(ratios) - 1 if ratios else 0.0

    async def _measure_reference(self) -> None:
        variant = space.reference(self.subject.format)
        if variant is None:
            raise Unprocessable(f"Models of the format {self.subject.format} cannot be optimised.")
        candidate = space.candidate(variant, self.wanted.objective, self.here.cores)
        self._say(f"measuring the reference, {candidate.label}")
        began = time.monotonic()
        try:
            figures = await self._run(candidate, self.subject.artifact, keep=True)
        except TrialFailed as error:
            raise Unprocessable(f"The model as it is cannot be measured: {error.message}") from error
        self._feeds = self.subject.feeds[: await asyncio.to_thread(_files_in, self.subject.outputs)]
        self._note_base(figures)
        self._add(TrialResult(1, candidate, "ok", "", figures, 1.0, True, time.monotonic() - began))

    async def _repeat_reference(self) -> None:
        """Measure the reference once more, so that drift and noise are known; nothing where there is no time."""
        if self._left_s < SPARE_S:
            return
        candidate = self.trials[0].candidate
        self._say("measuring the reference again, for the machine's noise")
        try:
            self._note_base(await self._run(candidate, self.subject.artifact))
        except TrialFailed:  # it was measured before: this run's failure says nothing about the others
            return

    def _note_base(self, figures: Figures) -> None:
        self._base = figures
        self._bases.append(figures)
        self._since_base = 0

    async def _try_all(self, candidates: Sequence[Candidate], *, compare: bool = True) -> bool:
        """Try one after the other; false where the time was up first."""
        for candidate in candidates:
            if self._left_s < SPARE_S:
                return False
            if self._since_base >= REFERENCE_EVERY:
                await self._repeat_reference()
            if self._left_s < SPARE_S:
                return False
            await self._try(candidate, compare=compare)
            self._since_base += 1
        return True

    async def _try(self, candidate: Candidate, *, compare: bool) -> None:
        began, number = time.monotonic(), len(self.trials) + 1
        notes: Mapping[str, Any] = {}
        try:
            artifact, notes = await self._artifact(candidate.variant)
            self._say(f"trying {candidate.label}")
            figures = await self._run(candidate, artifact, compare=compare)
            result = self._judged(TrialResult(number, candidate, "ok", "", figures, notes=notes), compare=compare)
        except (TrialFailed, ConversionFailed) as error:
            self._out_of_time |= self._left_s <= 0
            result = TrialResult(number, candidate, "failed", error.message, notes=notes)
        except StoppedAsSlower as slower:
            reason = f"Stopped early: a run took {slower.p50_ms:.2f} ms, far more than the best so far."
            result = TrialResult(number, candidate, "slower", reason, notes=notes)
        self._add(replace(result, seconds=time.monotonic() - began))

    async def _artifact(self, variant: Variant) -> tuple[Path, Mapping[str, Any]]:
        if not variant.conversion:
            return self.subject.artifact, {}
        made = self._artifacts.get(variant.conversion)
        if made is None:
            self._say(f"converting: {variant.conversion}")
            try:
                made = await self.convert(variant.conversion, self._left_s)
            except ConversionFailed as error:
                made = error  # nor can it be made for the next engine
            self._artifacts[variant.conversion] = made
        if isinstance(made, ConversionFailed):
            raise made
        return made

    async def _run(
        self, candidate: Candidate, artifact: Path, *, keep: bool = False, compare: bool = False
    ) -> Figures:
        subject = self.subject
        job = TrialJob(
            candidate,
            artifact,
            self._feeds,
            subject.outputs,
            keep=keep,
            compare=compare,
            classes=subject.classes,
            labels=subject.labels,
            pooled=subject.pooled,
            seconds=self.seconds,
            stop_ms=None if keep else self._stop_ms(candidate),
            judge_s=self._judging_s * (1 if keep else SLOWER_JUDGING),
            told={} if candidate.variant.conversion else subject.told,
        )
        wall_s = max(REFERENCE_S, self._left_s) if keep else max(LEAST_S, min(self.limits.wall_s, self._left_s))
        return await run_trial(job, replace(self.limits, wall_s=wall_s))

    @property
    def _judging_s(self) -> float:
        """Bounds what is compared, so that a thousand inputs of a slow model leave time to try anything."""
        return max(LEAST_S, self.wanted.budget_s / JUDGING)

    def _stop_ms(self, candidate: Candidate) -> float | None:
        """Latency over which a candidate cannot win any more; only where latency is all that counts."""
        if self.wanted.objective != "latency" or candidate == self.trials[0].candidate:
            return None
        best = [trial.figures.p50_ms for trial in self.trials if trial.status == "ok" and trial.figures]
        return STOP_AT * min(best) if best else None

    def _judged(self, trial: TrialResult, *, compare: bool) -> TrialResult:
        assert trial.figures is not None
        figures = trial.figures
        if not compare:  # another setting of a variant that has been judged already, or is what others are held to
            same = next(t for t in self.trials if t.candidate.variant == trial.candidate.variant and t.figures)
            assert same.figures is not None
            figures = replace(figures, fidelity=same.figures.fidelity)
            if same.reference:
                return replace(trial, figures=figures, speedup=self._score(figures) / self._base_score)
        lossy = space.must_be_judged(trial.candidate.variant)
        reason = judge(
            figures.fidelity, self.wanted.max_accuracy_loss, lossy=lossy, synthetic=self.subject.synthetic
        )
        status: Status = "rejected" if reason else "ok"
        return replace(
            trial, figures=figures, status=status, reason=reason, speedup=self._score(figures) / self._base_score
        )

    @property
    def _for_settings_s(self) -> float:
        """Nothing where the best would have no other settings to try."""
        first = space.reference(self.subject.format)
        return self.wanted.budget_s / KEPT_FOR_SETTINGS if first and self._settings(first) else 0.0

    def _best_variants(self) -> list[Variant]:
        able = [t for t in self.trials if t.status == "ok" and t.speedup is not None]
        best = sorted(able, key=lambda trial: trial.speedup or 0.0, reverse=True)
        return [trial.candidate.variant for trial in best[:BEST_VARIANTS]]

    def _settings(self, variant: Variant) -> list[Setting]:
        subject = self.subject
        return space.other_settings(
            self.wanted.objective, variant, self.here.cores, subject.batchable, subject.max_batch
        )

    async def _confirm(self) -> None:
        """Hold the best against the reference once more, so that a lucky moment does not decide."""
        able = [t for t in self.trials if t.status == "ok" and not t.reference and t.speedup is not None]
        if not able or self._left_s < SPARE_S:
            return
        best = max(able, key=lambda trial: trial.speedup or 0.0)
        self._say(f"confirming {best.candidate.label}")
        await self._repeat_reference()
        try:
            artifact, _ = await self._artifact(best.candidate.variant)
            again = await self._run(best.candidate, artifact)
        except (PlatformError, StoppedAsSlower):
            return
        speedup = min(best.speedup or 0.0, self._score(again) / self._base_score)
        self.trials[best.number - 1] = replace(best, speedup=speedup)

    def _score(self, figures: Figures) -> float:
        return score(self.wanted.objective, figures)

    @property
    def _base_score(self) -> float:
        assert self._base is not None
        return self._score(self._base)

    @property
    def _left_s(self) -> float:
        """Until the end, but for what is kept for later."""
        return self._until - time.monotonic() - self._kept_s

    def _add(self, trial: TrialResult) -> None:
        self.trials.append(trial)
        self.progress.done = len(self.trials)
        if trial.status == "ok" and (trial.speedup or 0.0) >= (self.progress.speedup or 0.0):
            self.progress.best, self.progress.speedup = trial.candidate.label, trial.speedup
        self.on_change()

    def _say(self, phase: str) -> None:
        self.progress.phase = phase
        self.on_change()


def _files_in(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())
