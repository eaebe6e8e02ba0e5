"""Classes of texts and entities in them against transformers' own pipelines, on the same two small models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.tasks import class_scores, token_classification
from core.tasks.base import Payload
from core.tasks.registry import task_class
from core.tasks.text_input import TextInput
from tests.planted import changed, must_notice
from tests.text_models import tokenizer
from tests.transformers_texts import CLASSES, FOLDER, TAGS

ANSWERS: list[dict[str, Any]] = json.loads((FOLDER / "answers.json").read_text())


def ask(folder: Path, task: str, model: str, labels: list[str]) -> list[dict[str, Any]]:
    """The task's answers to all sentences, as one batch."""
    tokenizer().save(str(folder / "tokenizer.json"))
    engine = OnnxEngine()
    signature = engine.load(FOLDER / model, EngineOptions(threads=1))
    bound = task_class(task)({"labels": labels}, signature, folder)
    prepared = bound.preprocess([Payload(one["text"].encode(), "text/plain") for one in ANSWERS], {})
    answers = bound.postprocess(engine.run(prepared.inputs), prepared.contexts, {})
    engine.close()
    return answers


def test_the_reference_has_something_to_say() -> None:
    best = {max(one["classes"], key=one["classes"].get) for one in ANSWERS}
    kinds = {entity["label"] for one in ANSWERS for entity in one["entities"]}
    joined = [
        entity
        for one in ANSWERS
        for entity in one["entities"]
        if " " in one["text"][entity["start"] : entity["end"]]
    ]
    assert len(best) > 1
    assert kinds == {"PER", "LOC"}
    assert len(joined) > 3


def compare_classes(folder: Path) -> None:
    """Hold the classes of all sentences against the reference."""
    for answer, wanted in zip(
        ask(folder, "text-classification", "classifier.onnx", CLASSES), ANSWERS, strict=True
    ):
        found = {one["label"]: one["score"] for one in answer["predictions"]}
        assert found == pytest.approx(wanted["classes"], abs=1e-5), wanted["text"]
        assert list(found) == sorted(found, key=lambda label: -found[label])


def compare_entities(folder: Path) -> None:
    """Hold the entities in all sentences against the reference."""
    for answer, wanted in zip(ask(folder, "token-classification", "tagger.onnx", TAGS), ANSWERS, strict=True):
        places = [(one["label"], one["start"], one["end"]) for one in answer["entities"]]
        assert places == [(one["label"], one["start"], one["end"]) for one in wanted["entities"]], wanted["text"]
        scores = [one["score"] for one in answer["entities"]]
        assert scores == pytest.approx([one["score"] for one in wanted["entities"]], abs=1e-5)
        for one in answer["entities"]:
            assert one["text"] == wanted["text"][one["start"] : one["end"]]


def test_classes_are_those_of_the_reference(tmp_path: Path) -> None:
    compare_classes(tmp_path)


def test_entities_are_those_of_the_reference(tmp_path: Path) -> None:
    compare_entities(tmp_path)


def padding_seen(arrays: dict[str, Any]) -> dict[str, Any]:
    return {**arrays, "attention_mask": np.ones_like(arrays["attention_mask"])}


@pytest.mark.planted("text-classification")
@pytest.mark.parametrize(
    ("owner", "name", "change"),
    [
        pytest.param(TextInput, "_arrays", padding_seen, id="padding is seen"),
        pytest.param(class_scores, "activate", lambda scores: scores[:, ::-1], id="classes the wrong way round"),
    ],
)
def test_an_error_planted_into_classes_is_noticed(tmp_path: Path, monkeypatch, owner, name, change) -> None:
    changed(monkeypatch, owner, name, change)
    must_notice(compare_classes, tmp_path)


def each_token_by_itself(*given: Any, by_word: bool) -> Any:
    return _SPANS(*given, by_word=False)


_SPANS = token_classification._spans


@pytest.mark.planted("token-classification")
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param("_spans", each_token_by_itself, id="words in pieces"),
        pytest.param("_joined", lambda spans, outside: spans, id="entities not joined"),
    ],
)
def test_an_error_planted_into_entities_is_noticed(tmp_path: Path, monkeypatch, name: str, wrong: Any) -> None:
    monkeypatch.setattr(token_classification, name, wrong)
    must_notice(compare_entities, tmp_path)
