"""Whisper through the front door: an upload, a recording in, its text out, and what is wrong with recordings."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.acceptance.answers import refused
from tests.conftest import Demo
from tests.speech import clips, voice_package, whisper_package

TEXT = "He might even have been made amiable himself."


@pytest.fixture(scope="module")
def speech(demo: Demo) -> Iterator[Demo]:
    """The demo's server, with Whisper tiny.en as `speech`."""
    demo.server.upload("speech", whisper_package())
    demo.server.deploy("speech", max_batch=4)
    yield demo
    left = demo.server.ok("DELETE", "/models/speech/deployment")
    demo.server.wait_generation("speech", left["generation"], "stopped")
    demo.server.ok("DELETE", "/models/speech")


def test_a_recording_is_answered_with_its_text_and_times(speech: Demo) -> None:
    answer = speech.server.infer("speech", speech.token, content=clips()[4].read_bytes())
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert body["task"] == "speech-recognition"
    assert body["text"] == TEXT
    assert body["language"] == "en"
    (segment,) = body["segments"]
    assert segment["text"] == TEXT
    assert 0 <= segment["start"] < segment["end"] <= body["duration_s"] + 0.5
    assert body["timing_ms"]["infer"] > 0


def test_two_recordings_in_one_request_and_parameters(speech: Demo) -> None:
    samples, _ = soundfile.read(clips()[4])
    flac = io.BytesIO()
    soundfile.write(flac, np.repeat(np.stack([samples, samples], 1), 2, axis=0), 32_000, format="FLAC")
    answer = speech.server.infer(
        "speech",
        speech.token,
        files=[("audio", ("a.wav", clips()[4].read_bytes())), ("audio", ("b.flac", flac.getvalue()))],
        data={"parameters": json.dumps({"beam_size": 1, "language": "en"})},
    )
    assert answer.status_code == 200, answer.text
    assert [result["text"] for result in answer.json()["results"]] == [TEXT, TEXT]


def test_wrong_recordings_and_parameters_are_refused(speech: Demo) -> None:
    hour = io.BytesIO()
    soundfile.write(hour, np.zeros(3_600_000), 1_000, format="FLAC")
    none = io.BytesIO()
    soundfile.write(none, np.zeros(0), 16_000, format="WAV")
    for content, status, says in (
        (hour.getvalue(), 413, "3,600.0 seconds long; at most 600 "),
        (none.getvalue(), 422, "no samples"),
        (b"\xff\xd8\xff\xe0" + bytes(20), 415, "not a recording"),
    ):
        answer = speech.server.infer("speech", speech.token, content=content)
        assert answer.status_code == status
        assert says in answer.json()["error"]["message"]
    answer = speech.server.infer(
        "speech",
        speech.token,
        files={"audio": ("a.wav", clips()[4].read_bytes())},
        data={"parameters": '{"language": "de"}'},
    )
    refused(answer, 422, "invalid_input")


@pytest.fixture(scope="module")
def voice(demo: Demo) -> Iterator[Demo]:
    """The demo's server, with silero-vad as `voice`."""
    demo.server.upload("voice", voice_package())
    demo.server.deploy("voice")
    yield demo
    left = demo.server.ok("DELETE", "/models/voice/deployment")
    demo.server.wait_generation("voice", left["generation"], "stopped")
    demo.server.ok("DELETE", "/models/voice")


def test_where_somebody_speaks(voice: Demo) -> None:
    answer = voice.server.infer("voice", voice.token, content=clips()[4].read_bytes())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["task"] == "voice-activity"
    (speech,) = body["speech"]
    assert 0 <= speech["start"] < 0.5
    assert speech["end"] - speech["start"] == pytest.approx(body["speech_s"], abs=0.01)
    assert body["speech_s"] <= body["duration_s"]


def piece(voice: Demo, data: bytes, id_: str, token: str = "", **flags: str) -> httpx.Response:
    """A part of a sequence: raw samples, in a form, with its place in headers."""
    headers = {"X-Access-Token": token or voice.token, "X-Sequence-ID": id_}
    headers |= {f"X-Sequence-{name.title()}": value for name, value in flags.items()}
    return voice.server.client.post(
        "/api/v1/inference/voice",
        files={"audio": ("piece.raw", data)},
        data={"parameters": '{"encoding": "s16le"}'},
        headers=headers,
    )


def test_part_by_part_the_same_speech_is_found(voice: Demo) -> None:
    samples, _ = soundfile.read(clips()[4], dtype="int16")
    whole = voice.server.infer("voice", voice.token, content=clips()[4].read_bytes()).json()["speech"][0]
    parts = [part.tobytes() for part in np.array_split(samples, 4)]
    events = []
    for number, data in enumerate(parts):
        flags = {"start": "true"} if number == 0 else {"end": "true"} if number == 3 else {}
        answer = piece(voice, data, "mine", **flags)
        assert answer.status_code == 200, answer.text
        events += answer.json()["events"]
    assert [event["event"] for event in events] == ["start", "end"]
    assert [event["at_s"] for event in events] == pytest.approx([whole["start"], whole["end"]], abs=0.05)
    refused(piece(voice, parts[0], "mine"), 409, "conflict", "no such sequence")


def test_a_sequence_is_its_tokens_own(voice: Demo) -> None:
    assert piece(voice, bytes(3200), "7", start="1").status_code == 200
    refused(piece(voice, bytes(3200), "7", token=voice.server.token()), 409, "conflict")
    refused(piece(voice, bytes(3201), "7"), 422, "invalid_input", "within a sample")  # and changes nothing
    assert piece(voice, bytes(3200), "7", end="1").json()["position_s"] == 0.2
    refused(piece(voice, bytes(3200), "7", start="maybe"), 400, "bad_request", "true or false")
    refused(piece(voice, bytes(3200), "x" * 129), 400, "bad_request", "at most 128")


def test_a_part_without_a_models_name_is_a_part_all_the_same(voice: Demo) -> None:
    wav = clips()[4].read_bytes()
    headers = {"X-Access-Token": voice.token, "X-Sequence-ID": "unnamed", "X-Sequence-Start": "true"}
    voice.server.ok("POST", "/models/activate", json={"model": "voice"})
    try:
        answer = voice.server.client.post("/predict", content=wav, headers=headers)
    finally:
        voice.server.ok("POST", "/models/activate", json={"model": None, "modality": "audio"})
    assert answer.status_code == 200, answer.text
    assert [event["event"] for event in answer.json()["events"]][:1] == ["start"]
    assert piece(voice, bytes(3200), "unnamed", end="true").json()["position_s"] > 3


def test_tensors_in_a_sequence_leave_the_state_to_the_server(voice: Demo) -> None:
    def call(id_: int, **flags: bool) -> httpx.Response:
        window = {"name": "input", "shape": [1, 576], "datatype": "FP32", "data": [0.01] * 576}
        body = {"inputs": [window], "parameters": {"sequence_id": id_, **flags}}
        return voice.server.client.post(
            "/v2/models/voice/infer", json=body, headers={"X-Access-Token": voice.token}
        )

    first, second = call(5, sequence_start=True).json(), call(5, sequence_end=True).json()
    states = [answer["outputs"][1]["data"] for answer in (first, second)]
    assert states[0] != states[1]
    assert call(5).status_code == 409
    assert call(0).status_code == 400  # no sequence: the state is the caller's to send


def test_a_version_keeps_as_many_sequences_as_the_setting_says(voice: Demo) -> None:
    for id_ in "abc":
        assert piece(voice, bytes(3200), id_, start="1").status_code == 200
    refused(piece(voice, bytes(3200), "d", start="1"), 503, "unavailable", "3 sequences already")
    for id_ in "abc":
        assert piece(voice, bytes(3200), id_, end="1").status_code == 200
    assert piece(voice, bytes(3200), "d", start="1", end="1").status_code == 200


def test_where_speech_begins_and_ends_is_told_as_it_comes(voice: Demo) -> None:
    """The same as of the whole recording; and each stream has a state of its own."""
    samples, _ = soundfile.read(clips()[4], dtype="int16")
    whole = voice.server.infer("voice", voice.token, content=clips()[4].read_bytes()).json()
    pieces = [part.tobytes() for part in np.array_split(samples, 7)]
    url, headers = f"ws://127.0.0.1:{voice.server.port}/api/v1/stream/voice", {"X-Access-Token": voice.token}
    with (
        connect(url, additional_headers=headers, proxy=None) as stream,
        connect(url, additional_headers=headers, proxy=None) as silent,
    ):
        for data in pieces:
            stream.send(data)
            silent.send(bytes(len(data)))
        stream.send('{"type": "end"}')
        silent.send('{"type": "end"}')
        *answers, statistics = [json.loads(message) for message in stream]
        *nothing, _ = [json.loads(message) for message in silent]
    events = [one for one in answers if "event" in one]
    assert [event["event"] for event in events] == ["start", "end"]
    (speech,) = whole["speech"]
    assert [event["at_s"] for event in events] == pytest.approx([speech["start"], speech["end"]], abs=0.05)
    assert events[0]["frame"] < len(pieces)
    assert answers[-1]["duration_s"] == whole["duration_s"]
    assert answers[-1]["timing_ms"]["total"] > answers[-1]["timing_ms"]["infer"] > 0
    assert statistics["frames"]["answered"] == len(pieces)
    assert [one["speech_s"] for one in nothing] == [0.0]


def test_speech_is_heard_as_it_comes(speech: Demo) -> None:
    """Pieces of half a second, as from a microphone: in between comes what was heard so far."""
    samples, _ = soundfile.read(clips()[4], dtype="int16")
    pieces = [samples[i : i + 8000].tobytes() for i in range(0, len(samples), 8000)]
    url = f"ws://127.0.0.1:{speech.server.port}/api/v1/stream/speech"
    headers = {"X-Access-Token": speech.token}
    with connect(url, additional_headers=headers, proxy=None) as stream:
        stream.send('{"type": "configure", "parameters": {"rate": 16000, "partial_s": 1}}')
        for piece in pieces:
            stream.send(piece)
        stream.send('{"type": "end"}')
        *partial, last, statistics = [json.loads(message) for message in stream]
    assert partial
    assert all(one["partial"] and 1 <= one["frame"] <= len(pieces) for one in partial)
    assert last["text"] == TEXT
    assert (last["model"], last["task"]) == ("speech", "speech-recognition")
    assert statistics["frames"] == {"received": len(pieces), "answered": len(pieces), "failed": 0, "dropped": 0}


def test_a_stream_of_speech_ends_with_its_first_error(speech: Demo) -> None:
    url = f"ws://127.0.0.1:{speech.server.port}/api/v1/stream/speech"
    headers = {"X-Access-Token": speech.token}
    for parameters in ('{"rate": 1}', '{"encoding": "mp3"}'):
        with connect(url, additional_headers=headers, proxy=None) as stream:
            stream.send(f'{{"type": "configure", "parameters": {parameters}}}')
            stream.send(bytes(3200))
            error = json.loads(stream.recv(timeout=20))
            assert error["error"]["code"] == "invalid_input"
            assert json.loads(stream.recv(timeout=20))["type"] == "statistics"
            with pytest.raises(ConnectionClosed, match="4422"):
                stream.recv(timeout=20)
    with pytest.raises(InvalidStatus), connect(f"{url}?mode=newest", additional_headers=headers, proxy=None):
        pass
