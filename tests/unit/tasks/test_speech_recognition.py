from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from core.engines.base import Engine, EngineOptions
from core.engines.ctranslate2 import Ctranslate2Engine
from core.errors import InvalidInput, InvalidPackage, TooLarge, UnsupportedMedia
from core.media import audio, log_mel
from core.signature import Signature, TensorSpec
from core.tasks import whisper_transcription
from core.tasks.base import MediaLimits, Payload
from core.tasks.registry import task_class
from core.tasks.speech_recognition import SpeechRecognition
from tests.planted import must_notice
from tests.speech import clips, whisper_folder

INT8 = {"precision": "int8"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Ctranslate2Engine()
    made.load(whisper_folder() / "model.bin", EngineOptions(threads=1, extra=INT8))
    yield made
    made.close()


def make(
    engine: Engine, config: dict[str, Any] | None = None, limits: MediaLimits | None = None
) -> SpeechRecognition:
    return SpeechRecognition(config or {}, engine._signature, whisper_folder(), limits or MediaLimits())


def answer(task: SpeechRecognition, engine: Engine, data: bytes, **parameters: Any) -> dict[str, Any]:
    return driven(task.steps(Payload(data), parameters), engine)


def driven(runs: Generator[Any, Any, Any], engine: Engine) -> Any:
    """What a generator of runs returns."""
    outputs = None
    while True:
        try:
            outputs = engine.run(next(runs) if outputs is None else runs.send(outputs))
        except StopIteration as stop:
            return stop.value


def long_recording() -> bytes:
    """All five clips, with a second of silence between: more than one window."""
    parts = [np.append(soundfile.read(clip, dtype="float32")[0], np.zeros(16_000, np.float32)) for clip in clips()]
    out = io.BytesIO()
    soundfile.write(out, np.concatenate([*parts, *parts[:2]]), 16_000, format="FLAC")
    return out.getvalue()


def two_channels() -> bytes:
    """A sentence in the right channel alone."""
    samples = soundfile.read(clips()[4], dtype="float32")[0]
    out = io.BytesIO()
    soundfile.write(out, np.stack([np.zeros_like(samples), samples], axis=1), 16_000, format="FLAC")
    return out.getvalue()


RECORDINGS = {"clip": lambda: clips()[3].read_bytes(), "stereo": two_channels, "long": long_recording}


@cache
def directly(which: str) -> list[Any]:
    """The segments that the library answers."""
    from faster_whisper import WhisperModel

    reference = WhisperModel(str(whisper_folder()), device="cpu", cpu_threads=1, compute_type="int8")
    return list(reference.transcribe(io.BytesIO(RECORDINGS[which]()), beam_size=5)[0])


def compare_text(engine: Engine, which: str) -> None:
    """Hold text, times and probabilities of a recording against the library called directly."""
    data, segments = RECORDINGS[which](), directly(which)
    found = answer(make(engine), engine, data)
    assert found["text"] == "".join(segment.text for segment in segments).strip()
    assert [(segment["start"], segment["end"], segment["text"]) for segment in found["segments"]] == [
        (round(segment.start, 2), round(segment.end, 2), segment.text.strip()) for segment in segments
    ]
    near = 0.02 if which == "stereo" else 1e-3  # the library rounds to 16 bits when it has averaged channels
    for ours, theirs in zip(found["segments"], segments, strict=True):
        assert ours["log_probability"] == pytest.approx(theirs.avg_logprob, abs=near)
        assert ours["no_speech"] == pytest.approx(theirs.no_speech_prob, abs=near)
    assert found["language"] == "en"
    assert found["duration_s"] == pytest.approx(len(soundfile.read(io.BytesIO(data))[0]) / 16_000, abs=1e-3)


@pytest.mark.parametrize("which", RECORDINGS)
def test_the_answer_is_that_of_the_library_called_directly(engine: Engine, which: str) -> None:
    compare_text(engine, which)


def test_the_long_recording_takes_several_windows(engine: Engine) -> None:
    found = directly("long")
    assert found[-1].end > 30
    assert "made still more respectable than he was" in "".join(segment.text for segment in found)


_SEGMENTS = whisper_transcription.segments_of


def without_what_was_before(tokens: Any, offset_s: float, frames: int, first_time: int) -> Any:
    return _SEGMENTS(tokens, 0.0, frames, first_time)


_READ = audio._read


def the_left_one(file: Any, frames: int, format: str) -> Any:
    return _READ(file, frames, format)[:, :1]


@pytest.mark.planted("speech-recognition")
@pytest.mark.parametrize(
    ("which", "owner", "name", "wrong"),
    [
        pytest.param("stereo", audio, "_read", the_left_one, id="channels are not averaged"),
        pytest.param("clip", log_mel, "_RANGE", 4.0, id="the spectrogram is another"),
        pytest.param(
            "long",
            whisper_transcription,
            "segments_of",
            without_what_was_before,
            id="times of a window without those before it",
        ),
    ],
)
def test_a_planted_error_is_noticed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, which: str, owner: Any, name: str, wrong: Any
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    must_notice(compare_text, engine, which)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"language": "de"}, "knows no language 'de'; it knows en"),
        ({"language": 7}, "knows no language"),
        ({"task": "translate"}, "cannot translate"),
        ({"task": "sing"}, "transcribe or translate"),
        ({"beam_size": 0}, "beam_size must be a whole number, 1 to 10"),
        ({"beam_size": "11"}, "beam_size"),
        ({"beam_size": True}, "beam_size"),
    ],
)
def test_wrong_parameters_are_refused_before_the_work(engine: Engine, parameters: dict, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        next(make(engine).steps(Payload(b"not even audio"), parameters))


def test_wrong_recordings_are_refused(engine: Engine) -> None:
    task = make(engine, limits=MediaLimits(max_audio_s=1))
    with pytest.raises(UnsupportedMedia, match="JPEG"):
        next(task.steps(Payload(b"\xff\xd8\xff\xe0" + bytes(50)), {}))
    with pytest.raises(TooLarge, match="at most 1 "):
        next(task.steps(Payload(clips()[0].read_bytes()), {}))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"postprocess": {"beam_size": 11}}, "postprocess.beam_size"),
        ({"postprocess": {"beams": 1}}, "postprocess.beams does not exist"),
        ({"postprocess": {"temperatures": []}}, "postprocess.temperatures"),
        ({"preprocess": {"mean": 1}}, "preprocess.mean does not exist"),
        ({"labels": ["a"]}, "labels does not exist"),
    ],
)
def test_a_wrong_manifest_is_refused(config: dict, says: str) -> None:
    with pytest.raises(InvalidPackage, match=says):
        task_class("speech-recognition").check(config)


def test_a_model_that_is_no_whisper_is_refused(tmp_path: Path) -> None:
    other = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 3)),))
    with pytest.raises(InvalidPackage, match=r"takes Whisper models in CTranslate2's form; .* inputs are x"):
        SpeechRecognition({}, other, tmp_path)


def test_a_vocabulary_of_something_else_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="no vocabulary"):
        SpeechRecognition({}, engine._signature, tmp_path)
    (tmp_path / "vocabulary.txt").write_text("a\nb\n")
    with pytest.raises(InvalidPackage, match="not that of a Whisper model"):
        SpeechRecognition({}, engine._signature, tmp_path)


def test_a_stream_gives_the_text_so_far_and_all_of_it_at_the_end(engine: Engine) -> None:
    stream = make(engine).open_stream({"partial_s": 1.5, "beam_size": 2})
    samples, rate = soundfile.read(clips()[4], dtype="int16")
    assert rate == 16_000
    said = []
    for start in range(0, len(samples), 5_000):
        said += driven(stream.feed(samples[start : start + 5_000].tobytes()), engine)
    (last,) = driven(stream.finish(), engine)
    partials = [answer["partial"] for answer in said]
    assert len(partials) == len(samples) // 24_000
    assert partials[-1].startswith("He might even have been made")
    assert len(partials[0]) < len(partials[-1])
    assert last["text"] == "He might even have been made amiable himself."
    assert last["duration_s"] == pytest.approx(len(samples) / 16_000, abs=1e-3)


@pytest.mark.parametrize("parameters", [{"partial_s": 0}, {"partial_s": "1"}, {"language": "de"}, {"rate": 1}])
def test_a_stream_with_wrong_parameters_is_refused(engine: Engine, parameters: dict) -> None:
    with pytest.raises(InvalidInput):
        make(engine).open_stream(parameters)
