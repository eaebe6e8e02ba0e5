"""`voice-activity`: where in a recording somebody speaks; for whole ones, part by part, and as it comes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from pydantic import Field

from core.errors import InvalidInput, InvalidPackage
from core.media import audio
from core.media.audio import SAMPLE_RATE, Samples
from core.media.pcm import PcmReader
from core.signature import NUMPY_DTYPES, Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.speech_events import Event, Progress, Rule, advance, conclude
from core.tasks.stepped import Inputs, PartSteps, State, StatefulTask, Steps
from core.tasks.streams import Answers, StreamedTask, TaskStream

WINDOW: Final = 512
"""Samples of 16 kHz that the model hears anew each time, after `CONTEXT` that it has heard before."""
CONTEXT: Final = 64
_RUN_WINDOWS: Final = 1024
"""Windows of one run at most: half a minute, so that a long recording does not hold its slot."""


class PreprocessConfig(TaskConfig):
    """There is nothing to say: the model hears windows of 32 ms at 16 kHz."""


class PostprocessConfig(TaskConfig):
    """When a window counts as speech, and how long speech and silence have to be to count."""

    threshold: float = Field(0.5, gt=0.15, lt=1)
    min_speech_ms: int = Field(250, ge=0, le=10_000)
    min_silence_ms: int = Field(100, ge=0, le=10_000)
    pad_ms: int = Field(30, ge=0, le=1_000)


class VoiceConfig(TaskConfig):
    """The manifest's section."""

    preprocess: PreprocessConfig = PreprocessConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


class VoiceActivity(StatefulTask, StreamedTask):
    """Answers `{speech: [{start, end}], speech_s, duration_s}` to a recording.

    To a part of a sequence `{events: [{event, at_s}], speaking, position_s}`. Parameters: `threshold`;
    `probabilities` (true) adds that of each window.
    """

    name: ClassVar[str] = "voice-activity"
    modality: ClassVar[str] = "audio"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(VoiceConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        audio.require()
        said = parse(VoiceConfig, config).postprocess
        self._model = _Model(signature)
        self._limits = limits
        self._rule = Rule(
            said.threshold,
            min_speech=_samples(said.min_speech_ms),
            min_silence=_samples(said.min_silence_ms),
            pad=_samples(said.pad_ms),
            window=WINDOW,
        )
        self.state_tensors = self._model.states

    def steps(self, payload: Payload, parameters: Mapping[str, Any]) -> Steps:
        """A whole recording, half a minute a run."""
        rule, wanted = self._asked(parameters)
        caps = self._limits
        samples = audio.decode(payload.data, max_seconds=caps.max_audio_s, max_bytes=caps.max_audio_bytes)
        # What is left of the last window is filled up with silence.
        padded = np.pad(samples, (0, -len(samples) % WINDOW))
        heard = yield from self._hear(_Known.first(self._model), padded, rule)
        events = [*heard.events, *conclude(heard.known.progress, rule, len(samples))]
        answer = {
            "speech": _pairs(events),
            "speech_s": _seconds(heard.known.progress.spoken),
            "duration_s": _seconds(len(samples)),
        }
        return {**answer, "probabilities": heard.rounded()} if wanted else answer

    def first_state(self) -> State:
        """See StatefulTask."""
        return _Known.first(self._model).to_state()

    def part(self, payload: Payload, parameters: Mapping[str, Any], state: State, *, last: bool) -> PartSteps:
        """A piece of a recording: a file of any kind, or raw samples of 16 kHz where `encoding` is given."""
        rule, wanted = self._asked(parameters)
        samples = self._piece(payload, parameters)
        heard = yield from self._hear(_Known.from_state(state), samples, rule)
        progress, events = heard.known.progress, heard.events
        if last:
            events = [*events, *conclude(progress, rule, progress.position + len(heard.known.rest))]
        answer = {
            "events": [_said(event) for event in events],
            "speaking": progress.speaking,
            "position_s": _seconds(progress.position + len(heard.known.rest)),
        }
        return ({**answer, "probabilities": heard.rounded()} if wanted else answer), heard.known.to_state()

    def open_stream(self, parameters: Mapping[str, Any]) -> TaskStream:
        """Raw samples in, `{event, at_s}` out as they become certain; at the end `{speech_s, duration_s}`."""
        rule, _ = self._asked(parameters)
        return VoiceStream(self, rule, PcmReader(parameters))

    def _hear(self, known: _Known, samples: Samples, rule: Rule) -> Generator[Inputs, Tensors, _Heard]:
        """Every whole window of what is left and what is new; `known` becomes what is known then."""
        samples = np.concatenate([known.rest, samples])
        count = len(samples) // WINDOW
        heard = _Heard(known, [], [])
        for start in range(0, count, _RUN_WINDOWS):
            piece = samples[start * WINDOW : min(count, start + _RUN_WINDOWS) * WINDOW]
            joined = np.concatenate([known.context, piece])
            found = yield from self._model.run(known.tensors, _windows(joined))
            known.context = joined[-CONTEXT:]
            heard.probabilities += found
            for probability in found:
                heard.events += advance(known.progress, probability, rule)
        known.rest = samples[count * WINDOW :].copy()
        return heard

    def _asked(self, parameters: Mapping[str, Any]) -> tuple[Rule, bool]:
        threshold = parameters.get("threshold", self._rule.threshold)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.15 < threshold < 1:
            raise InvalidInput("The parameter threshold must be a number above 0.15 and below 1.")
        wanted = parameters.get("probabilities", False)
        if not isinstance(wanted, bool):
            raise InvalidInput("The parameter probabilities must be true or false.")
        return replace(self._rule, threshold=float(threshold)), wanted

    def _piece(self, payload: Payload, parameters: Mapping[str, Any]) -> Samples:
        caps = self._limits
        if "encoding" not in parameters:
            return audio.decode(payload.data, max_seconds=caps.max_audio_s, max_bytes=caps.max_audio_bytes)
        if parameters.get("rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise InvalidInput(f"The raw samples of a sequence's part must have a rate of {SAMPLE_RATE}.")
        reader = PcmReader(parameters)
        return np.concatenate([reader.feed(payload.data), reader.finish()])


class VoiceStream(TaskStream):
    """One caller's stream."""

    def __init__(self, task: VoiceActivity, rule: Rule, reader: PcmReader) -> None:
        self._task = task
        self._rule = rule
        self._reader = reader
        self._known = _Known.first(task._model)

    def feed(self, chunk: bytes) -> Answers:
        """The events that this piece makes certain."""
        heard = yield from self._task._hear(self._known, self._reader.feed(chunk), self._rule)
        return [_said(event) for event in heard.events]

    def finish(self) -> Answers:
        """The end of what is being said, if anything is, and the sums."""
        heard = yield from self._task._hear(self._known, self._reader.finish(), self._rule)
        progress = self._known.progress
        length = progress.position + len(self._known.rest)
        events = [*heard.events, *conclude(progress, self._rule, length)]
        sums = {"speech_s": _seconds(progress.spoken), "duration_s": _seconds(length)}
        return [*(_said(event) for event in events), sums]


@dataclass(slots=True)
class _Known:
    """What is known between two pieces."""

    tensors: dict[str, np.ndarray[Any, Any]]
    context: Samples
    rest: Samples
    progress: Progress

    @classmethod
    def first(cls, model: _Model) -> _Known:
        return cls(dict(model.first), np.zeros(CONTEXT, np.float32), np.empty(0, np.float32), Progress())

    @classmethod
    def from_state(cls, state: State) -> _Known:
        tensors = {name: value for name, value in state.items() if not name.startswith(".")}
        return cls(tensors, state[".context"], state[".rest"], Progress.from_array(state[".progress"]))

    def to_state(self) -> State:
        own = {".context": self.context, ".rest": self.rest, ".progress": self.progress.to_array()}
        return {**self.tensors, **own}


@dataclass(slots=True)
class _Heard:
    known: _Known
    events: list[Event]
    probabilities: list[float]

    def rounded(self) -> list[float]:
        return [round(probability, 4) for probability in self.probabilities]


class _Model:
    """Which tensors of the model are what. Raises InvalidPackage where it is no such model."""

    def __init__(self, signature: Signature) -> None:
        self._input, *states = signature.inputs
        self._output, *nexts = signature.outputs
        whole = (
            len(states) == len(nexts) > 0
            and self._input.dtype == self._output.dtype == "FP32"
            and len(self._input.shape) == 2
            and self._input.shape[1] in (-1, CONTEXT + WINDOW)
            and all(spec.shape for spec in states)
        )
        if not whole:
            raise InvalidPackage(
                "The task voice-activity takes models of an input [windows, 576] and of inputs for their state, "
                "with as many outputs behind the probability."
            )
        self._at_once = len(self._output.shape) == 1
        self.states = {spec.name: after.name for spec, after in zip(states, nexts, strict=True)}
        self.first = {
            spec.name: np.zeros([1 if size == -1 else size for size in spec.shape], NUMPY_DTYPES[spec.dtype])
            for spec in states
        }

    def run(
        self, tensors: dict[str, np.ndarray[Any, Any]], windows: np.ndarray[Any, Any]
    ) -> Generator[Inputs, Tensors, list[float]]:
        """The probabilities of windows [n, 576]; `tensors` becomes the next state."""
        found: list[float] = []
        size = len(windows) if self._at_once else 1
        for start in range(0, len(windows), max(1, size)):
            outputs = yield {self._input.name: windows[start : start + size], **tensors}
            found += outputs[self._output.name].reshape(-1).tolist()
            # Copies: views would keep a whole batch's outputs alive.
            tensors.update({name: outputs[after].copy() for name, after in self.states.items()})
        return found


def _windows(samples: Samples) -> np.ndarray[Any, Any]:
    """[n, 576]: each window after the end of the one before."""
    view = np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + WINDOW)[::WINDOW]
    return np.ascontiguousarray(view)


def _pairs(events: list[Event]) -> list[dict[str, float]]:
    starts = [at for kind, at in events if kind == "start"]
    ends = [at for kind, at in events if kind == "end"]
    return [{"start": _seconds(start), "end": _seconds(end)} for start, end in zip(starts, ends, strict=True)]


def _said(event: Event) -> dict[str, Any]:
    return {"event": event[0], "at_s": _seconds(event[1])}


def _samples(milliseconds: int) -> int:
    return milliseconds * SAMPLE_RATE // 1000


def _seconds(samples: float) -> float:
    return round(samples / SAMPLE_RATE, 3)
