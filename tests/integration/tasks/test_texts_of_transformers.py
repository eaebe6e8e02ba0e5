"""Classes of texts and entities in them against transformers' own pipelines, on the same two small models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.tasks.base import Payload
from core.tasks.registry import task_class
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


def test_classes_are_those_of_the_reference(tmp_path: Path) -> None:
    for answer, wanted in zip(
        ask(tmp_path, "text-classification", "classifier.onnx", CLASSES), ANSWERS, strict=True
    ):
        found = {one["label"]: one["score"] for one in answer["predictions"]}
        assert found == pytest.approx(wanted["classes"], abs=1e-5), wanted["text"]
        assert list(found) == sorted(found, key=lambda label: -found[label])


def test_entities_are_those_of_the_reference(tmp_path: Path) -> None:
    for answer, wanted in zip(ask(tmp_path, "token-classification", "tagger.onnx", TAGS), ANSWERS, strict=True):
        places = [(one["label"], one["start"], one["end"]) for one in answer["entities"]]
        assert places == [(one["label"], one["start"], one["end"]) for one in wanted["entities"]], wanted["text"]
        scores = [one["score"] for one in answer["entities"]]
        assert scores == pytest.approx([one["score"] for one in wanted["entities"]], abs=1e-5)
        for one in answer["entities"]:
            assert one["text"] == wanted["text"][one["start"] : one["end"]]
