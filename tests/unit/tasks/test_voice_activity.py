from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soundfile

from core.engines.base import Engine, EngineOptions
from core.engines.onnx import OnnxEngine
from core.errors import InvalidInput, InvalidPackage
from core.signature import Signature, TensorSpec
from core.tasks import voice_activity
from core.tasks.base import Payload
from core.tasks.registry import task_class
from core.tasks.speech_events import Progress, Rule, advance, conclude
from core.tasks.voice_activity import VoiceActivity
from tests.planted import must_notice
from tests.speech import clips, voice_model


@pytest.fixture(scope="module", params=["silero_vad_16k_sequence", "silero_vad_openvino_16k"])
def loaded(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Signature]]:
    """All windows at once, and one at a time."""
    engine = OnnxEngine()
    yield engine, engine.load(voice_model(request.param), EngineOptions(threads=1))
    engine.close()


def make(signature: Signature, **postprocess: Any) -> VoiceActivity:
    return VoiceActivity({"postprocess": postprocess}, signature, Path())


def driven(runs: Generator[Any, Any, Any], engine: Engine) -> Any:
    outputs = None
    while True:
        try:
            outputs = engine.run(next(runs) if outputs is None else runs.send(outputs))
        except StopIteration as stop:
            return stop.value


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Two sentences between silences: int16, 16 kHz."""
    silence = np.zeros(16_000, np.int16)
    first, second = (soundfile.read(clip, dtype="int16")[0] for clip in clips()[1:5:3])
    return np.concatenate([silence, first, silence, silence, second, silence])


def wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, 16_000, format="WAV")
    return out.getvalue()


def directly(samples: np.ndarray) -> list[float]:
    """The probability of each window by ONNX Runtime alone, with silero's usual model."""
    session = onnxruntime.InferenceSession(str(voice_model("silero_vad")), providers=["CPUExecutionProvider"])
    state, context, found = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    floats = np.pad(samples.astype(np.float32) / 32_768, (0, -len(samples) % 512))
    for window in floats.reshape(-1, 512):
        heard = np.concatenate([context, window])
        given = {"input": heard[None], "state": state, "sr": np.array(16_000, np.int64)}
        probability, state = session.run(None, given)
        context = heard[-64:]
        found.append(float(probability[0, 0]))
    return found


def iterated(probabilities: list[float]) -> list[float]:
    """Seconds at which speech begins and ends by the rule of silero's own iterator, with its defaults."""
    found, quiet = [], 0
    for number, probability in enumerate(probabilities, 1):
        here, speaking = number * 512, len(found) % 2 == 1
        if probability >= 0.5:
            quiet = 0
            if not speaking:
                found.append(here - 512 - 480)
        elif probability < 0.35 and speaking:
            quiet = quiet or here
            if here - quiet >= 1600:
                found.append(quiet - 512 + 480)
                quiet = 0
    return [samples / 16_000 for samples in found]


def compare_speech(loaded: tuple[Engine, Signature], spoken: np.ndarray) -> None:
    """Hold probabilities and times against the model called directly, window by window."""
    engine, signature = loaded
    answer = driven(make(signature).steps(Payload(wav(spoken)), {"probabilities": True}), engine)
    assert np.allclose(answer["probabilities"], directly(spoken), atol=2e-3)
    every = driven(make(signature, min_speech_ms=0).steps(Payload(wav(spoken)), {}), engine)["speech"]
    reference = iterated(directly(spoken))
    assert len(reference) >= 4
    assert [at for each in every for at in (each["start"], each["end"])] == pytest.approx(reference, abs=0.001)
    first, second = answer["speech"]
    assert 0.8 < first["start"] < 1.6
    assert first["end"] < second["start"] - 1
    assert answer["duration_s"] == pytest.approx(len(spoken) / 16_000, abs=1e-3)
    assert answer["speech_s"] == pytest.approx(
        sum(each["end"] - each["start"] for each in answer["speech"]), abs=0.01
    )


@pytest.mark.parametrize("windows_of_a_run", [voice_activity._RUN_WINDOWS, 10])
def test_probabilities_are_those_of_the_model_called_directly(
    loaded: tuple, spoken: np.ndarray, windows_of_a_run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_activity, "_RUN_WINDOWS", windows_of_a_run)  # as if it were a long recording
    compare_speech(loaded, spoken)


_RUN, _WINDOWS = voice_activity._Model.run, voice_activity._windows


def without_a_state(model: Any, tensors: dict[str, np.ndarray], windows: np.ndarray) -> Any:
    return (yield from _RUN(model, dict(tensors), windows))


def without_what_was_before(samples: np.ndarray) -> np.ndarray:
    windows = _WINDOWS(samples)
    windows[:, : voice_activity.CONTEXT] = 0
    return windows


def ends_too_late(*given: Any) -> list[Any]:
    return [(kind, at + 512) if kind == "end" else (kind, at) for kind, at in advance(*given)]


@pytest.mark.planted("voice-activity")
@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        pytest.param(voice_activity._Model, "run", without_a_state, id="the state is not carried"),
        pytest.param(voice_activity, "_windows", without_what_was_before, id="a window begins with silence"),
        pytest.param(voice_activity, "advance", ends_too_late, id="ends are a window late"),
    ],
)
def test_a_planted_error_is_noticed(
    loaded: tuple, spoken: np.ndarray, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Any
) -> None:
    monkeypatch.setattr(voice_activity, "_RUN_WINDOWS", 10)
    monkeypatch.setattr(owner, name, wrong)
    must_notice(compare_speech, loaded, spoken)


def test_part_by_part_and_streamed_it_is_the_same(loaded: tuple, spoken: np.ndarray) -> None:
    engine, signature = loaded
    task = make(signature)
    whole = driven(task.steps(Payload(wav(spoken)), {"probabilities": True}), engine)
    expected = [at for each in whole["speech"] for at in (each["start"], each["end"])]
    cuts = [0, 7_001, 7_101, 40_000, len(spoken) - 100, len(spoken)]

    state, events, probabilities = task.first_state(), [], []
    stream, streamed = task.open_stream({}), []
    for start, end in pairwise(cuts):
        piece = spoken[start:end].tobytes()
        how = {"encoding": "s16le", "probabilities": True}
        before = {name: value.copy() for name, value in state.items()}
        answer, after = driven(task.part(Payload(piece), how, state, last=end == len(spoken)), engine)
        assert all(np.array_equal(before[name], state[name]) for name in before)
        state = after
        assert sum(value.nbytes for value in state.values()) < 8_192
        events += [event["at_s"] for event in answer["events"]]
        probabilities += answer["probabilities"]
        streamed += driven(stream.feed(piece), engine)
    *last, sums = driven(stream.finish(), engine)
    whole_windows = len(spoken) // 512
    assert np.allclose(probabilities[:whole_windows], whole["probabilities"][:whole_windows], atol=1e-4)
    assert events == pytest.approx(expected, abs=0.05)
    assert [event["at_s"] for event in (*streamed, *last)] == events
    assert [event["event"] for event in (*streamed, *last)] == ["start", "end"] * 2
    assert sums["duration_s"] == whole["duration_s"]
    assert not answer["speaking"]


def test_a_part_may_be_a_file(loaded: tuple, spoken: np.ndarray) -> None:
    engine, signature = loaded
    task = make(signature)
    answer, _ = driven(task.part(Payload(wav(spoken[:40_000])), {}, task.first_state(), last=False), engine)
    assert answer["speaking"]
    assert answer["events"][0]["event"] == "start"
    assert answer["position_s"] == 2.5


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"threshold": 0.1}, "above 0.15"),
        ({"threshold": True}, "threshold"),
        ({"probabilities": "yes"}, "true or false"),
    ],
)
def test_wrong_parameters_are_refused(loaded: tuple, parameters: dict, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        next(make(loaded[1]).steps(Payload(b""), parameters))
    with pytest.raises(InvalidInput, match=says):
        make(loaded[1]).open_stream(parameters)


def test_raw_parts_have_the_models_rate(loaded: tuple) -> None:
    task = make(loaded[1])
    with pytest.raises(InvalidInput, match="rate of 16000"):
        next(task.part(Payload(b""), {"encoding": "s16le", "rate": 8000}, task.first_state(), last=False))


def test_other_models_and_manifests_are_refused() -> None:
    spec = TensorSpec("x", "FP32", (-1, 3))
    with pytest.raises(InvalidPackage, match="for their state"):
        VoiceActivity({}, Signature((spec,), (spec,)), Path())
    with pytest.raises(InvalidPackage, match=r"postprocess\.threshold"):
        task_class("voice-activity").check({"postprocess": {"threshold": 2}})


RULE = Rule(0.5, min_speech=3, min_silence=2, pad=0, window=1)


@pytest.mark.parametrize(
    ("probabilities", "events"),
    [
        ([0, 0, 0, 0], []),
        ([0, 1, 1, 1, 1, 0, 0, 0, 0], [("start", 1), ("end", 5)]),
        ([0, 1, 1, 0, 0, 0, 0], []),  # too short
        ([1, 1, 1, 0, 0.4, 1, 1, 0, 0, 0], [("start", 0), ("end", 7)]),  # too short a silence
        ([1, 1, 1, 0.4, 0.4, 0.4, 0.4], [("start", 0), ("end", 7)]),  # not low enough to end it
        ([0.4, 0.4, 0.4], []),  # and not high enough to begin
        ([1, 1, 1], [("start", 0), ("end", 3)]),  # ended by the recording's end
        ([1, 1], []),
    ],
)
def test_where_speech_begins_and_ends(probabilities: list[float], events: list) -> None:
    progress, found = Progress(), []
    for probability in probabilities:
        progress = Progress.from_array(progress.to_array())
        found += advance(progress, probability, RULE)
    found += conclude(progress, RULE, len(probabilities))
    assert found == events
    assert not progress.speaking
    assert progress.spoken == sum(at if kind == "end" else -at for kind, at in events)
