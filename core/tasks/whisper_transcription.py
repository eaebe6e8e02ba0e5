"""One recording's way through Whisper, window by window. Yields the inputs of each run and is sent its outputs.

Source: Radford et al. 2022, section 4.5: windows of 30 s that move on to the last time heard, the text before as
the prompt, and sampling at rising temperatures where a search repeats itself or is unsure.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from core.errors import RunFailed
from core.tasks.base import Tensors
from core.tasks.whisper_vocabulary import WhisperVocabulary
from core.tasks.whisper_windows import FRAME_S, Segment, segments_of

WINDOW_FRAMES: Final = 3000
_MAX_PROMPT: Final = 448 // 2 - 1
_RESET_TEMPERATURE: Final = 0.5
"""Text that was sampled above this does not become a prompt."""

Inputs = dict[str, np.ndarray[Any, Any]]
Runs = Generator[Inputs, Tensors, Any]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen, and what is believed of them."""

    beam_size: int
    temperatures: tuple[float, ...]
    repetition: float
    """The compression ratio of text above which it repeats itself."""
    log_probability: float
    """The mean of a token's below which it is unsure."""
    no_speech: float
    """The probability above which an unsure window is silence."""
    condition_on_previous_text: bool
    translate: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """What one window gave."""

    tokens: list[int]
    log_probability: float
    no_speech: float
    temperature: float
    repetition: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """One segment of the answer."""

    segment: Segment
    text: str
    heard: Heard


class Transcription:
    """What is known while a recording is transcribed. `language` is a code, or empty to find it out."""

    def __init__(self, vocabulary: WhisperVocabulary, decoding: Decoding, language: str) -> None:
        self.language = language or ("" if vocabulary.multilingual else "en")
        self.language_probability = 1.0
        self.spoken: list[Spoken] = []
        self._vocabulary = vocabulary
        self._decoding = decoding
        self._previous: list[int] = []

    def run(self, spectrogram: np.ndarray[Any, Any]) -> Runs:
        """Every window of a spectrogram [mels, frames], whose last frame is beyond the recording's end."""
        frames = spectrogram.shape[1] - 1
        place = 0
        while place < frames:
            place += yield from self.window(spectrogram, place, min(WINDOW_FRAMES, frames - place))

    def window(self, spectrogram: np.ndarray[Any, Any], place: int, frames: int, before: int = 0) -> Runs:
        """Hear one window; answers by how many frames to move on. `before` is how many frames are not kept."""
        features = window_of(spectrogram, place, frames)
        heard = yield from self.hear(features)
        decoding = self._decoding
        if heard.no_speech > decoding.no_speech and heard.log_probability <= decoding.log_probability:
            return frames
        segments, onward = segments_of(
            heard.tokens, (before + place) * FRAME_S, frames, self._vocabulary.first_time
        )
        for segment in segments:
            self._keep(segment, heard)
        if not decoding.condition_on_previous_text or heard.temperature > _RESET_TEMPERATURE:
            self._previous = []
        # A window that ends where it began would be heard for ever.
        return onward or frames

    def hear(self, features: np.ndarray[Any, Any], change: Callable[[Decoding], Decoding] | None = None) -> Runs:
        """The tokens of features [1, mels, 3000], tried at each temperature until they are believed.

        `change` may say how this once they are found otherwise.
        """
        if not self.language:
            yield from self._detect(features)
        tried: list[Heard] = []
        decoding = change(self._decoding) if change is not None else self._decoding
        for temperature in decoding.temperatures:
            outputs = yield self._inputs(features, self._prompt(), temperature, decoding.beam_size)
            tried.append(self._heard(outputs, temperature))
            if self._believed(tried[-1]):
                return tried[-1]
        plain = [heard for heard in tried if heard.repetition <= self._decoding.repetition]
        best = max(plain or tried, key=lambda heard: heard.log_probability)
        return Heard(best.tokens, best.log_probability, best.no_speech, tried[-1].temperature, best.repetition)

    def text(self) -> str:
        """All that was said."""
        return "".join(spoken.text for spoken in self.spoken).strip()

    def _detect(self, features: np.ndarray[Any, Any]) -> Runs:
        outputs = yield self._inputs(features, [self._vocabulary.end], 0.0, 1)
        try:
            self.language = self._vocabulary.language(int(outputs["tokens"][0, 0]))
        except StopIteration:
            raise RunFailed("The model answered no language.") from None
        self.language_probability = float(np.exp(outputs["log_probability"][0, 0]))

    def _keep(self, segment: Segment, heard: Heard) -> None:
        text = self._vocabulary.text(segment.tokens)
        if segment.start == segment.end or not text.strip():
            return
        self._previous = [*self._previous, *segment.tokens][-_MAX_PROMPT:]
        self.spoken.append(Spoken(segment, text, heard))

    def _prompt(self) -> list[int]:
        words = self._vocabulary
        before = [words.previous, *self._previous] if self._previous else []
        if not words.multilingual:
            return [*before, words.start]
        task = words.translate if self._decoding.translate else words.transcribe
        return [*before, words.start, words.languages[self.language], task]

    @staticmethod
    def _inputs(features: np.ndarray[Any, Any], prompt: Sequence[int], temperature: float, beams: int) -> Inputs:
        return {
            "features": features,
            "prompt": np.array([prompt], np.int64),
            "temperature": np.array([[temperature]], np.float32),
            "beam_size": np.array([[beams]], np.int64),
        }

    def _heard(self, outputs: Tensors, temperature: float) -> Heard:
        tokens = [int(token) for token in outputs["tokens"][0] if token >= 0]
        spelt = self._vocabulary.text(tokens).strip().encode()
        return Heard(
            tokens,
            float(outputs["log_probability"][0, 0]),
            float(outputs["no_speech"][0, 0]),
            temperature,
            len(spelt) / len(zlib.compress(spelt)),
        )

    def _believed(self, heard: Heard) -> bool:
        decoding = self._decoding
        unsure = heard.log_probability < decoding.log_probability
        if unsure and heard.no_speech > decoding.no_speech:
            return True  # silence
        return not unsure and heard.repetition <= decoding.repetition


def window_of(spectrogram: np.ndarray[Any, Any], place: int, frames: int) -> np.ndarray[Any, Any]:
    """float32 [1, mels, 3000]: so many frames of a spectrogram, and nothing behind them."""
    window = np.zeros((1, len(spectrogram), WINDOW_FRAMES), np.float32)
    window[0, :, :frames] = spectrogram[:, place : place + frames]
    return window
