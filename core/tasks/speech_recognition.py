"""`speech-recognition`: a recording in; its text, segments with times, and its language out. For Whisper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from core.errors import InvalidInput, InvalidPackage
from core.media import audio
from core.media.log_mel import log_mel
from core.signature import Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload
from core.tasks.config import TaskConfig, parse
from core.tasks.speech_stream import SpeechStream
from core.tasks.stepped import SteppedTask, Steps
from core.tasks.streams import StreamedTask
from core.tasks.whisper_transcription import WINDOW_FRAMES, Decoding, Spoken, Transcription
from core.tasks.whisper_vocabulary import WhisperVocabulary

MAX_BEAMS: Final = 10
_INPUTS: Final = ("features", "prompt", "temperature", "beam_size")


class PreprocessConfig(TaskConfig):
    """There is nothing to say: Whisper's features are always the same."""


class PostprocessConfig(TaskConfig):
    """How text is found; the defaults are Whisper's own. A request's parameters of the same name come first."""

    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    beam_size: int = Field(5, ge=1, le=MAX_BEAMS)
    temperatures: tuple[float, ...] = Field((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), min_length=1, max_length=10)
    repetition: float = Field(2.4, gt=0)
    log_probability: float = Field(-1.0, le=0)
    no_speech: float = Field(0.6, ge=0, le=1)
    condition_on_previous_text: bool = True


class SpeechConfig(TaskConfig):
    """The manifest's section."""

    preprocess: PreprocessConfig = PreprocessConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


class SpeechRecognition(SteppedTask, StreamedTask):
    """Answers `{text, language, language_probability, duration_s, segments: [{start, end, text, …}]}`.

    Parameters: `language` (a code such as `en`), `task` (`transcribe`, or `translate` into English), `beam_size`.
    """

    name: ClassVar[str] = "speech-recognition"
    modality: ClassVar[str] = "audio"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(SpeechConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        audio.require()
        said = parse(SpeechConfig, config).postprocess
        self._mels = _mels(signature)
        self._vocabulary = WhisperVocabulary(root)
        self._limits = limits
        self._language = said.language or ""
        self._check_language(self._language, InvalidPackage)
        self._decoding = Decoding(
            said.beam_size,
            said.temperatures,
            said.repetition,
            said.log_probability,
            said.no_speech,
            said.condition_on_previous_text,
            said.task == "translate",
        )

    def steps(self, payload: Payload, parameters: Mapping[str, Any]) -> Steps:
        """One run a window of 30 s, one more where the language is looked for, and more where text is doubtful."""
        transcription = self.transcription(parameters)
        caps = self._limits
        samples = audio.decode(payload.data, max_seconds=caps.max_audio_s, max_bytes=caps.max_audio_bytes)
        yield from transcription.run(log_mel(samples, self._mels))
        return _answer(transcription, len(samples) / audio.SAMPLE_RATE)

    def open_stream(self, parameters: Mapping[str, Any]) -> SpeechStream:
        """Raw samples in; `{partial}` about once a second, and the whole answer at the end.

        Parameters besides those of a request: `encoding`, `rate`, `channels` (see PcmReader) and `partial_s`.
        """
        return SpeechStream(self._vocabulary, self.transcription(parameters), self._mels, parameters, _answer)

    def transcription(self, parameters: Mapping[str, Any]) -> Transcription:
        """A new one, as the request asks for it. Raises InvalidInput."""
        language = parameters.get("language") or self._language
        self._check_language(language, InvalidInput)
        asked = parameters.get("task")
        if asked not in (None, "transcribe", "translate"):
            raise InvalidInput("The parameter task is transcribe or translate.")
        translate = self._decoding.translate if asked is None else asked == "translate"
        if translate and not self._vocabulary.multilingual:
            raise InvalidInput("The model knows English alone, and cannot translate.")
        decoding = replace(self._decoding, beam_size=self._beams(parameters), translate=translate)
        return Transcription(self._vocabulary, decoding, language)

    def _beams(self, parameters: Mapping[str, Any]) -> int:
        asked = parameters.get("beam_size")
        if asked is None:
            return self._decoding.beam_size
        count = int(asked) if isinstance(asked, str) and asked.isascii() and asked.isdigit() else asked
        if type(count) is not int or not 1 <= count <= MAX_BEAMS:
            raise InvalidInput(f"The parameter beam_size must be a whole number, 1 to {MAX_BEAMS}.")
        return count

    def _check_language(self, language: Any, error: type[InvalidInput] | type[InvalidPackage]) -> None:
        known = self._vocabulary.languages if self._vocabulary.multilingual else {"en": 0}
        if language and (not isinstance(language, str) or language not in known):
            raise error(
                f"The model knows no language {str(language)[:16]!r}; it knows {', '.join(sorted(known))}."
            )


def _mels(signature: Signature) -> int:
    """How many mels the features have. Raises InvalidPackage where the model is no Whisper."""
    shapes = {spec.name: spec.shape for spec in signature.inputs}
    features = shapes.get("features", ())
    if tuple(shapes) != _INPUTS or len(features) != 3 or features[2] != WINDOW_FRAMES:
        raise InvalidPackage(
            "The task speech-recognition takes Whisper models in CTranslate2's form; this model's inputs are "
            f"{', '.join(list(shapes)[:8])}."
        )
    return features[1]


def _answer(transcription: Transcription, seconds: float) -> dict[str, Any]:
    return {
        "text": transcription.text(),
        "language": transcription.language,
        "language_probability": round(transcription.language_probability, 4),
        "duration_s": round(seconds, 3),
        "segments": [_segment(spoken) for spoken in transcription.spoken],
    }


def _segment(spoken: Spoken) -> dict[str, Any]:
    return {
        "start": round(spoken.segment.start, 2),
        "end": round(spoken.segment.end, 2),
        "text": spoken.text.strip(),
        "log_probability": round(spoken.heard.log_probability, 4),
        "no_speech": round(spoken.heard.no_speech, 4),
    }
