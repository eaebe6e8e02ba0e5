from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from core.engines.base import EngineOptions
from core.engines.ctranslate2 import Ctranslate2Engine
from core.engines.registry import engine_class, engines_for
from core.errors import EngineUnavailable, LoadFailed, RunFailed
from core.media import audio
from core.media.log_mel import log_mel
from core.signature import TensorSpec
from tests import whisper_models
from tests.speech import clips, whisper_folder
from tests.unit.engines.subjects import Loudest

START, END = 50257, 50256
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folder() -> Path:
    return whisper_folder()


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Ctranslate2Engine]:
    made = Ctranslate2Engine()
    made.load(folder / "model.bin", EngineOptions(threads=1))
    yield made
    made.close()


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Features of "He might even have been made amiable himself." and one other sentence, [2, 80, 3000]."""
    features = np.zeros((2, 80, 3000), np.float32)
    for row, clip in zip(features, clips()[-1:-3:-1], strict=True):
        spectrogram = log_mel(audio.decode(clip.read_bytes(), max_seconds=60, max_bytes=1 << 30), 80)
        row[:, : spectrogram.shape[1] - 1] = spectrogram[:, :-1]
    return features


def asked(
    features: np.ndarray, prompt: tuple[int, ...] = (START,), temperature: float = 0, beam: int = 1
) -> Arrays:
    rows = len(features)
    return {
        "features": features,
        "prompt": np.array([prompt] * rows, np.int64).reshape(rows, len(prompt)),
        "temperature": np.full((rows, 1), temperature, np.float32),
        "beam_size": np.full((rows, 1), beam, np.int64),
    }


def said(outputs: Arrays, row: int = 0) -> list[int]:
    return [token for token in outputs["tokens"][row].tolist() if token >= 0]


def test_information_says_it_works() -> None:
    info = Ctranslate2Engine.info()
    assert info.available
    assert info.version
    assert "cpu" in info.devices
    assert {"fp32", "int8"} <= set(info.precisions)
    assert engine_class("ctranslate2") is Ctranslate2Engine
    assert engines_for("ctranslate2") == ["ctranslate2"]


@pytest.fixture(scope="module")
def alone(engine: Ctranslate2Engine, spoken: np.ndarray) -> list[Arrays]:
    """What each row is answered by itself."""
    return [engine.run(asked(spoken[row : row + 1])) for row in (0, 1)]


def test_the_signature_is_one_window_of_whisper(folder: Path) -> None:
    engine = Ctranslate2Engine()
    signature = engine.load(folder / "model.bin", EngineOptions(threads=1))
    assert engine.memory() > 70_000_000
    engine.close()
    engine.close()
    assert engine.memory() == 0
    with pytest.raises(RunFailed, match="not loaded"):
        engine.run({})
    assert signature.inputs[0] == TensorSpec("features", "FP32", (-1, 80, 3000))
    assert [spec.name for spec in signature.inputs] == ["features", "prompt", "temperature", "beam_size"]
    assert [spec.name for spec in signature.outputs] == ["tokens", "log_probability", "no_speech"]
    assert signature.why_not_batchable() is None


def test_a_batch_answers_each_row_as_it_does_alone(
    engine: Ctranslate2Engine, spoken: np.ndarray, alone: list[Arrays]
) -> None:
    given = np.asfortranarray(spoken)  # of any layout, and not to be written to
    given.flags.writeable = False
    before = [said(one) for one in alone]
    together = engine.run(asked(given))
    assert [said(together, row) for row in (0, 1)] == [said(one) for one in alone] == before
    assert said(together) != said(together, 1)
    assert together["tokens"].shape == (2, 448)
    for name in ("log_probability", "no_speech"):
        assert np.allclose(together[name], np.concatenate([one[name] for one in alone]), atol=0.02)
    assert (together["log_probability"] < 0).all()


def test_rows_that_ask_for_different_things_may_share_a_batch(
    engine: Ctranslate2Engine, spoken: np.ndarray, alone: list[Arrays]
) -> None:
    inputs = asked(spoken)
    inputs["prompt"][1] = END
    mixed = engine.run(inputs)
    assert said(mixed) == said(alone[0])
    assert said(mixed, 1) == []


def test_without_a_start_token_nothing_is_said(engine: Ctranslate2Engine, spoken: np.ndarray) -> None:
    for prompt in ((), (0, 1)):
        assert said(engine.run(asked(spoken[:1], prompt))) == []


def test_sampling_takes_the_best_of_several(engine: Ctranslate2Engine, spoken: np.ndarray) -> None:
    assert len(said(engine.run(asked(spoken[:1], temperature=0.2)))) > 5


def test_runs_side_by_side_keep_their_own_answers(
    engine: Ctranslate2Engine, spoken: np.ndarray, alone: list[Arrays]
) -> None:
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda row: said(engine.run(asked(spoken[row : row + 1]))), [1, 0]))
    assert found == [said(alone[1]), said(alone[0])]


def test_an_empty_batch(engine: Ctranslate2Engine) -> None:
    outputs = engine.run(asked(np.empty((0, 80, 3000), np.float32)))
    assert [outputs[name].shape for name in outputs] == [(0, 448), (0, 1), (0, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": np.zeros((1, 80, 2999), np.float32)},
        {"features": np.zeros((1, 128, 3000), np.float32)},
        {"features": np.zeros((1, 80, 3000), np.float64)},
        {"prompt": np.array([START], np.int64)},
        {"prompt": np.array([[START, 10**9]], np.int64)},
        {"prompt": np.array([[START, -1]], np.int64)},
        {"prompt": np.array([[START] * 600], np.int64)},
        {"prompt": np.array([[START]] * 2, np.int64)},
        {"other": np.zeros((1, 1), np.float32)},
    ],
    ids=["frames", "mels", "dtype", "rank", "no such token", "negative token", "too long", "rows", "name"],
)
def test_wrong_inputs_fail_cleanly_and_the_model_goes_on(
    engine: Ctranslate2Engine, wrong: Arrays, folder: Path
) -> None:
    with pytest.raises(RunFailed) as caught:
        engine.run(asked(np.zeros((1, 80, 3000), np.float32)) | wrong)
    assert str(folder) not in caught.value.message
    assert caught.value.message.endswith(".")
    assert engine.run(asked(np.empty((0, 80, 3000), np.float32)))["tokens"].shape == (0, 448)


def copied(folder: Path, into: Path) -> Path:
    for name in ("model.bin", "config.json", "vocabulary.txt"):
        shutil.copy(folder / name, into / name)
    return into / "model.bin"


def test_closing_within_a_batch_lets_it_end(tmp_path: Path) -> None:
    """Rows that ask for different things are several calls of the library, and the model may go between two."""
    engine = Ctranslate2Engine()
    engine.load(whisper_models.loudest(tmp_path), EngineOptions(threads=1))
    subject, rows = Loudest(), list(range(8))
    inputs = subject.ask(rows)
    inputs["beam_size"] = np.array([[1 + row] for row in rows])
    begun = Event()

    def run() -> list[int]:
        begun.set()
        return subject.answered(engine.run(inputs))

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(run)
        assert begun.wait(30)
        engine.close()
        failed = answer.exception()
    if isinstance(failed, RunFailed):  # it was closed before it began
        assert "not loaded" in failed.message
    else:
        assert answer.result() == rows


def test_what_cannot_be_loaded_says_why(folder: Path, tmp_path: Path) -> None:
    model = copied(folder, tmp_path)
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(LoadFailed, match="CTranslate2 cannot load the model") as caught:
        Ctranslate2Engine().load(model, EngineOptions())
    assert str(tmp_path) not in caught.value.message
    (tmp_path / "vocabulary.txt").unlink()
    with pytest.raises(LoadFailed, match=r"lacks vocabulary\.txt"):
        Ctranslate2Engine().load(model, EngineOptions())


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        (EngineOptions(extra={"precision": "fp8"}), LoadFailed, "precision is auto, stored, fp32"),
        (EngineOptions(extra={"beams": 3}), LoadFailed, "no option 'beams'"),
        (EngineOptions(device="tpu"), EngineUnavailable, "cpu and cuda:N"),
        (EngineOptions(device="cuda:9"), EngineUnavailable, "no device cuda:9"),
    ],
)
def test_options_are_checked(folder: Path, options: EngineOptions, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        Ctranslate2Engine().load(folder / "model.bin", options)


def test_a_vocabulary_may_be_a_json_list(folder: Path, tmp_path: Path) -> None:
    model = copied(folder, tmp_path)
    tokens = (tmp_path / "vocabulary.txt").read_text().removesuffix("\n").split("\n")
    (tmp_path / "vocabulary.txt").unlink()
    (tmp_path / "vocabulary.json").write_text(json.dumps(tokens))
    engine = Ctranslate2Engine()
    engine.load(model, EngineOptions(threads=1))
    engine.close()
