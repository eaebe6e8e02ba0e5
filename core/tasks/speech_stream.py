"""Speech as it is spoken: the text so far after each second or so, and all of it at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from core.errors import InvalidInput, TooLarge
from core.media.audio import SAMPLE_RATE, Samples
from core.media.log_mel import HOP, log_mel
from core.media.pcm import PcmReader
from core.tasks.streams import Answers, TaskStream
from core.tasks.whisper_transcription import WINDOW_FRAMES, Decoding, Transcription, window_of
from core.tasks.whisper_vocabulary import WhisperVocabulary

WINDOW_SAMPLES: Final = WINDOW_FRAMES * HOP
MAX_S: Final = 6 * 3600
"""How long a stream may be: its text and the times of its segments are kept until it ends."""
_PARTIAL_S: Final = (0.2, 30.0)


class SpeechStream(TaskStream):
    """Hears what is not settled again each `partial_s` seconds, quickly; settles a window of 30 s once it is full.

    `answer` makes the last part of a transcription and of the seconds heard.
    """

    def __init__(
        self,
        vocabulary: WhisperVocabulary,
        transcription: Transcription,
        mels: int,
        parameters: Mapping[str, Any],
        answer: Callable[[Transcription, float], dict[str, Any]],
    ) -> None:
        self._vocabulary = vocabulary
        self._settled = transcription
        self._mels = mels
        self._answer = answer
        self._reader = PcmReader(parameters)
        self._every = round(_seconds(parameters) * SAMPLE_RATE)
        self._samples: Samples = np.empty(0, np.float32)
        self._offset = 0
        """Samples before those that are kept."""
        self._heard = 0
        """Of those that are kept, how many the last partial answer had heard."""

    def feed(self, chunk: bytes) -> Answers:
        """`[{partial}]`, the text so far, when there is enough that is new; else nothing."""
        self._take(self._reader.feed(chunk))
        yield from self._settle()
        if len(self._samples) - self._heard < self._every:
            return []
        self._heard = len(self._samples)
        text = yield from self._listen()
        return [{"partial": text}]

    def finish(self) -> Answers:
        """One answer: as for a whole recording."""
        self._take(self._reader.finish())
        yield from self._settle()
        frames = len(self._samples) // HOP
        place = 0
        spectrogram = log_mel(self._samples, self._mels) if frames else None
        while spectrogram is not None and place < frames:
            place += yield from self._settled.window(
                spectrogram, place, min(WINDOW_FRAMES, frames - place), self._offset // HOP
            )
        return [self._answer(self._settled, (self._offset + len(self._samples)) / SAMPLE_RATE)]

    def _take(self, samples: Samples) -> None:
        if self._offset + len(self._samples) + len(samples) > MAX_S * SAMPLE_RATE:
            raise TooLarge(f"The stream is longer than {MAX_S // 3600} hours; open another.")
        self._samples = np.concatenate([self._samples, samples])

    def _settle(self) -> Answers:
        while len(self._samples) >= WINDOW_SAMPLES:
            window = log_mel(self._samples[:WINDOW_SAMPLES], self._mels)
            onward = yield from self._settled.window(window, 0, WINDOW_FRAMES, self._offset // HOP)
            self._samples = self._samples[onward * HOP :]
            self._offset += onward * HOP
            self._heard = 0
        return []

    def _listen(self) -> Any:
        """The text so far: what is settled, and one quick reading of the rest."""
        features = window_of(log_mel(self._samples, self._mels), 0, len(self._samples) // HOP)
        heard = yield from self._settled.hear(features, quick)
        return f"{self._settled.text()}{self._vocabulary.text(heard.tokens)}".strip()


def quick(decoding: Decoding) -> Decoding:
    """One reading, never drawn again: a partial answer is soon replaced."""
    return replace(decoding, beam_size=1, temperatures=decoding.temperatures[:1])


def _seconds(parameters: Mapping[str, Any]) -> float:
    value = parameters.get("partial_s", 1.0)
    least, most = _PARTIAL_S
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidInput(f"The parameter partial_s must be a number, {least:g} to {most:g}.")
    return float(value)
