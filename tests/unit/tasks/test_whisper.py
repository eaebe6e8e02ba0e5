"""Whisper's windows and tokens, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.errors import RunFailed
from core.tasks.speech_stream import SpeechStream
from core.tasks.whisper_transcription import Decoding, Transcription
from core.tasks.whisper_vocabulary import WhisperVocabulary
from core.tasks.whisper_windows import segments_of

T = 1000  # the token of the time 0.00 here


@pytest.mark.parametrize(
    ("tokens", "segments", "onward"),
    [
        # one segment with its end: the window is done
        ([T, 1, 2, T + 100], [(10.0, 12.0)], 3000),
        # without an end it lasts as long as the window
        ([T, 1, 2], [(10.0, 40.0)], 3000),
        # a pair of times in the middle, and nothing finished behind it: heard again from there
        ([T, 1, T + 100, T + 100, 2], [(10.0, 12.0)], 200),
        # the same, but the window closes with a single time
        ([T, 1, T + 100, T + 150, 2, T + 200], [(10.0, 12.0), (13.0, 14.0)], 3000),
        # two pairs: the second is where to go on
        ([T, 1, T + 50, T + 50, 2, T + 75, T + 75], [(10.0, 11.0), (11.0, 11.5)], 150),
        ([], [(10.0, 40.0)], 3000),
    ],
)
def test_segments_of_a_window(tokens: list[int], segments: list[tuple[float, float]], onward: int) -> None:
    found, moved = segments_of(tokens, 10.0, 3000, T)
    assert [(round(s.start, 3), round(s.end, 3)) for s in found] == segments
    assert moved == onward


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> WhisperVocabulary:
    """Multilingual: as many tokens as there have to be, most of them of no meaning."""
    folder = tmp_path_factory.mktemp("vocabulary")
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    words = ["Ġhello", "Ġworld", "Ã¼", "Ã", "¼", "Ċ"]
    fill = [f"w{n}" for n in range(51_865 - len(words) - len(special) - 1 - len(times))]
    tokens = [*words, *fill, *special, "<|startofprev|>", *times]
    (folder / "vocabulary.json").write_text(json.dumps(tokens))
    return WhisperVocabulary(folder)


def test_text_is_spelt_byte_by_byte(vocabulary: WhisperVocabulary) -> None:
    assert vocabulary.text([0, 1]) == " hello world"
    assert vocabulary.text([2, 3, 4, 5]) == "üü\n"
    assert vocabulary.text([3]) == "\N{REPLACEMENT CHARACTER}"
    assert vocabulary.text([vocabulary.start, 0, vocabulary.first_time + 7, -1, 10**9]) == " hello"
    assert vocabulary.multilingual
    assert list(vocabulary.languages) == ["en", "de"]


def made(tokens: list[int], log_probability: float = -0.2, no_speech: float = 0.01) -> dict[str, np.ndarray]:
    """What an engine answers."""
    row = np.full((1, 448), -1, np.int64)
    row[0, : len(tokens)] = tokens
    return {
        "tokens": row,
        "log_probability": np.array([[log_probability]], np.float32),
        "no_speech": np.array([[no_speech]], np.float32),
    }


def transcribe(vocabulary: WhisperVocabulary, answers: list[dict], seconds: float = 10, **how) -> tuple:
    """Run with made-up answers; what was asked, and the transcription."""
    decoding = Decoding(
        beam_size=how.pop("beam_size", 3),
        temperatures=how.pop("temperatures", (0.0, 0.4, 0.8)),
        repetition=2.4,
        log_probability=-1.0,
        no_speech=0.6,
        condition_on_previous_text=how.pop("condition_on_previous_text", True),
        translate=how.pop("translate", False),
    )
    transcription = Transcription(vocabulary, decoding, how.pop("language", "en"))
    runs = transcription.run(np.ones((80, round(seconds * 100) + 1), np.float32))
    asked = []
    try:
        asked.append(next(runs))
        for given in answers:
            asked.append(runs.send(made(**given)))
    except StopIteration:
        return asked, transcription
    raise AssertionError("it asks for more than was given")


def prompts(asked: list) -> list[list[int]]:
    return [inputs["prompt"][0].tolist() for inputs in asked]


def test_the_language_is_found_where_none_is_given(vocabulary: WhisperVocabulary) -> None:
    german, first = vocabulary.languages["de"], vocabulary.first_time
    asked, found = transcribe(
        vocabulary, [{"tokens": [german], "log_probability": np.log(0.9)}, {"tokens": [first, 0]}], language=""
    )
    assert found.language == "de"
    assert found.language_probability == pytest.approx(0.9, abs=1e-3)
    assert prompts(asked) == [[vocabulary.end], [vocabulary.start, german, vocabulary.transcribe]]
    with pytest.raises(RunFailed, match="no language"):
        transcribe(vocabulary, [{"tokens": []}], language="")


def test_translating_is_asked_for_in_the_prompt(vocabulary: WhisperVocabulary) -> None:
    asked, _ = transcribe(vocabulary, [{"tokens": [0]}], translate=True, language="de")
    assert prompts(asked)[0][-1] == vocabulary.translate


def test_doubtful_text_is_sampled_at_rising_temperatures(vocabulary: WhisperVocabulary) -> None:
    repeated = {"tokens": [0] * 60}
    unsure = {"tokens": [1], "log_probability": -1.5}
    asked, found = transcribe(vocabulary, [repeated, unsure, {"tokens": [0, 1]}])
    assert [round(float(inputs["temperature"][0, 0]), 1) for inputs in asked] == [0.0, 0.4, 0.8]
    assert found.text() == "hello world"
    assert found.spoken[0].heard.temperature == 0.8


def test_where_all_is_doubtful_the_surest_is_taken(vocabulary: WhisperVocabulary) -> None:
    tries = [
        {"tokens": [1], "log_probability": -1.5},
        {"tokens": [0], "log_probability": -1.2},
        {"tokens": [0] * 60, "log_probability": -0.1},  # sure, but it repeats itself
    ]
    assert transcribe(vocabulary, tries)[1].text() == "hello"


def test_an_unsure_window_without_speech_is_skipped(vocabulary: WhisperVocabulary) -> None:
    asked, found = transcribe(vocabulary, [{"tokens": [0], "log_probability": -1.5, "no_speech": 0.9}])
    assert len(asked) == 1
    assert found.text() == ""
    assert (
        transcribe(vocabulary, [{"tokens": [0], "log_probability": -0.5, "no_speech": 0.9}])[1].text() == "hello"
    )


def test_the_text_before_is_the_prompt_and_windows_move_on_to_the_last_time(vocabulary: WhisperVocabulary) -> None:
    first = vocabulary.first_time
    begun = [first, 0, first + 500, first + 500]  # heard to 10 s of the first 30
    asked, found = transcribe(vocabulary, [{"tokens": begun}, {"tokens": [first, 1]}], seconds=35)
    assert prompts(asked)[1][:5] == [vocabulary.previous, first, 0, first + 500, vocabulary.start]
    assert (asked[0]["features"][0, 0] == 1).all()
    assert asked[1]["features"][0, 0].sum() == 2500  # 10 to 35 s, then nothing
    assert [(round(s.segment.start, 2), round(s.segment.end, 2)) for s in found.spoken] == [(0, 10), (10, 35)]
    asked, _ = transcribe(
        vocabulary, [{"tokens": begun}, {"tokens": [first, 1]}], seconds=35, condition_on_previous_text=False
    )
    assert prompts(asked)[1][0] == vocabulary.start


def test_a_window_that_ends_where_it_began_moves_on(vocabulary: WhisperVocabulary) -> None:
    first = vocabulary.first_time
    asked, _ = transcribe(vocabulary, [{"tokens": [first, 0, first, first]}, {"tokens": [0]}], seconds=35)
    assert asked[1]["features"][0, 0].sum() == 500


def test_a_long_stream_settles_window_by_window_and_keeps_little(vocabulary: WhisperVocabulary) -> None:
    decoding = Decoding(5, (0.0, 0.5), 2.4, -1.0, 0.6, True, False)
    transcription = Transcription(vocabulary, decoding, "en")
    stream = SpeechStream(
        vocabulary, transcription, 80, {"partial_s": 10}, lambda found, s: {"s": s, "t": found.text()}
    )
    first = vocabulary.first_time
    partials = []
    for _ in range(65):
        runs = stream.feed(bytes(32_000))
        outputs = None
        while True:
            try:
                inputs = next(runs) if outputs is None else runs.send(outputs)
            except StopIteration as stop:
                partials += stop.value
                break
            final = inputs["beam_size"][0, 0] == 5
            said = [first, 0, first + 1250, first + 1250, 1] if final else [first, 1]
            outputs = made(said)
        assert len(stream._samples) <= 30 * 16_000
    assert partials[0] == {"partial": "world"}
    assert partials[-1] == {"partial": "hello hello world"}
    ends = [(round(spoken.segment.start, 2), round(spoken.segment.end, 2)) for spoken in transcription.spoken]
    assert ends == [(0, 25), (25, 50)]
    runs = stream.finish()
    outputs = next(runs)
    with pytest.raises(StopIteration) as stopped:
        runs.send(made([first, 1, first + 700]))
    assert stopped.value.value == [{"s": 65.0, "t": "hello hello world"}]
    assert round(transcription.spoken[-1].segment.start, 2) == 50


def test_a_vocabulary_without_its_special_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text("{}")
    with pytest.raises(Exception, match="list of tokens"):
        WhisperVocabulary(tmp_path)
