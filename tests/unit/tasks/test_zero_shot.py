from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.errors import InvalidInput, InvalidPackage
from core.tasks import image_embedding, text_tower
from core.tasks.base import Payload
from core.tasks.image_input import ImageInput
from core.tasks.text_tower import TextTower
from core.tasks.zero_shot_image_classification import ZeroShotImageClassification
from tests import towers
from tests.asked import answer_of
from tests.planted import changed, must_notice
from tests.towers import picture

Call = Callable[..., list[dict[str, Any]]]


def make(root: Path, described: dict[str, Any]) -> tuple[ZeroShotImageClassification, Call]:
    engine = OnnxEngine()
    signature = engine.load(root / "image.onnx", EngineOptions(threads=1))
    config = {key: described[key] for key in ("preprocess", "postprocess", "labels") if key in described}
    ZeroShotImageClassification.check(config)
    task = ZeroShotImageClassification(config, signature, root)

    def call(data: bytes, **parameters: Any) -> list[dict[str, Any]]:
        answer = answer_of(task, engine, data, **parameters)
        found: list[dict[str, Any]] = json.loads(json.dumps(answer))["predictions"]
        return found

    return task, call


def reference(colour: tuple[int, ...], labels: list[str], scale: float = 10.0) -> dict[str, float]:
    """Softmax of cosines, by NumPy alone."""
    image = np.array(colour, np.float64) - np.mean(colour)
    axes = [np.eye(3)[towers.COLOURS.index(label)] if label in towers.COLOURS else np.zeros(3) for label in labels]
    logits = scale * np.array(axes) @ (image / np.linalg.norm(image))
    powers = np.exp(logits - logits.max())
    return dict(zip(labels, powers / powers.sum(), strict=True))


def compare_scores(folder: Path, colour: tuple[int, int, int]) -> None:
    """Hold the labels of a picture of one colour against the reference."""
    _, call = make(towers.unpacked(folder), towers.manifest())
    wanted = reference(colour, towers.LABELS)
    found = call(picture(*colour))
    assert [one["label"] for one in found] == sorted(wanted, key=lambda label: -wanted[label])
    for one in found:
        assert one["score"] == pytest.approx(wanted[one["label"]], abs=1e-4)
        assert one["index"] == towers.LABELS.index(one["label"])


@pytest.mark.parametrize("colour", [(255, 0, 0), (10, 200, 90), (40, 60, 61)])
def test_scores_are_the_reference_s(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    compare_scores(tmp_path, colour)


@pytest.mark.planted("zero-shot-image-classification")
@pytest.mark.parametrize(
    ("owner", "name", "change"),
    [
        pytest.param(ImageInput, "_levels", lambda levels: levels[::-1], id="red and blue swapped"),
        pytest.param(text_tower, "normalized", lambda vectors: vectors * 2, id="the texts' not of length 1"),
        pytest.param(image_embedding, "normalized", lambda vectors: vectors / 2, id="the image's not of length 1"),
        pytest.param(TextTower, "vectors", lambda vectors: vectors[::-1], id="labels in another order"),
    ],
)
def test_a_planted_error_is_noticed(tmp_path: Path, monkeypatch, owner: Any, name: str, change: Any) -> None:
    changed(monkeypatch, owner, name, change)
    must_notice(compare_scores, tmp_path, (10, 200, 90))


def test_labels_of_a_call(tmp_path: Path) -> None:
    _, call = make(towers.unpacked(tmp_path), towers.manifest())
    found = call(picture(0, 0, 255), labels=["blue", "red", "photo"], top_k=2)
    wanted = reference((0, 0, 255), ["blue", "red", "photo"])
    assert [(one["label"], one["index"]) for one in found] == [("blue", 0), ("photo", 2)]
    assert found[0]["score"] == pytest.approx(wanted["blue"], abs=1e-5)
    assert call(picture(0, 0, 255), template="blue {}")[0]["label"] == "blue"


def test_texts_are_run_once_however_often_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, call = make(towers.unpacked(tmp_path), towers.manifest())
    tower = task._tower
    assert tower is not None
    run: list[str] = []
    plain = tower._run
    monkeypatch.setattr(tower, "_run", lambda texts: run.extend(texts) or plain(texts))
    for _ in range(3):
        call(picture(255, 0, 0))
    assert not run, "those of the manifest were made when the model was loaded"
    for _ in range(3):
        call(picture(255, 0, 0), labels=["red", "photo", "photo"])
    assert run == ["a photo of a photo"]
    monkeypatch.setattr(text_tower, "CACHED_TEXTS", 2)
    call(picture(255, 0, 0), labels=[f"of {number}" for number in range(40)])
    assert len(tower._kept) == 2


def test_vectors_given_in_the_package(tmp_path: Path) -> None:
    root = towers.unpacked(tmp_path, **{"labels.json": json.dumps((np.eye(3) * 7).tolist()).encode()})
    (root / "labels.bin").write_bytes((np.eye(3) * 7).astype("<f4").tobytes())
    for name in ("labels.json", "labels.bin"):
        _, call = make(root, towers.manifest(model=None, embeddings=name))
        found = call(picture(10, 200, 90))
        wanted = reference((10, 200, 90), towers.LABELS)
        assert found[0]["label"] == "green"
        assert found[0]["score"] == pytest.approx(wanted["green"], abs=1e-4)
        with pytest.raises(InvalidInput, match="its own labels only"):
            call(picture(1, 2, 3), labels=["red"])


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"labels": []}, "list of 1 to 200 texts"),
        ({"labels": ["x"] * 201}, "list of 1 to 200 texts"),
        ({"labels": "red"}, "list of 1 to 200 texts"),
        ({"labels": ["red", " "]}, "text of 1 to 500 characters"),
        ({"labels": ["red", 7]}, "text of 1 to 500 characters"),
        ({"labels": ["\ud800"]}, "surrogate|UTF-8"),
        ({"template": "a photo"}, "template must be a text with {}"),
        ({"top_k": 4}, "top_k must be a whole number, 1 to 3"),
        ({"labels": ["red"], "top_k": 2}, "top_k must be a whole number, 1 to 1"),
    ],
)
def test_wrong_parameters_are_refused_before_the_work(
    tmp_path: Path, parameters: dict[str, Any], says: str
) -> None:
    task, _ = make(towers.unpacked(tmp_path), towers.manifest())
    with pytest.raises(InvalidInput, match=says):
        task.preprocess([Payload(b"no image")], parameters)


def test_without_labels_of_its_own_a_call_names_them(tmp_path: Path) -> None:
    described = towers.manifest()
    del described["labels"]
    _, call = make(towers.unpacked(tmp_path), described)
    assert call(picture(255, 0, 0), labels=["green", "red"])[0]["label"] == "red"
    with pytest.raises(InvalidInput, match="no labels of its own"):
        call(picture(255, 0, 0))


@pytest.mark.parametrize(
    ("text", "other", "says"),
    [
        ({"model": None}, {}, "needs either model or embeddings"),
        ({"embeddings": "x.json"}, {}, "needs either model or embeddings"),
        ({"template": "a photo"}, {}, "template needs {}"),
        ({"model": "gone.onnx"}, {}, "'gone.onnx' is not in the model's package"),
        ({"model": "../text.onnx"}, {}, "is not in the model's package"),
        ({"output": "z"}, {}, "no output 'z'"),
        ({}, {"text.onnx": b"no model"}, "cannot be loaded"),
        ({}, {"text.onnx": towers.image_tower()}, "takes input_ids"),
        ({}, {"text.onnx": towers.text_tower(4)}, "vectors have 3 values, and the labels' 4"),
        (
            {"model": None, "embeddings": "v.json"},
            {"v.json": b"[[1, 2], [3, 4]]"},
            "a vector for each of 3 labels",
        ),
        ({"model": None, "embeddings": "v.json"}, {"v.json": b"[1"}, "a vector for each of 3 labels"),
        ({"model": None, "embeddings": "v.bin"}, {"v.bin": b"\0" * 8}, "a vector for each of 3 labels"),
        ({"model": None, "embeddings": "v.bin"}, {"v.bin": b"\xff" * 12}, "NaN or infinity"),
    ],
)
def test_towers_that_do_not_fit(tmp_path: Path, text: dict[str, Any], other: dict[str, bytes], says: str) -> None:
    root = towers.unpacked(tmp_path, **other)
    with pytest.raises(InvalidPackage, match=says):
        make(root, towers.manifest(**text))[1](picture(1, 2, 3))
