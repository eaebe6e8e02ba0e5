"""Text tasks on made models with a real tokenizer: pooling, scores, entities, limits, and what does not fit."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.errors import EngineUnavailable, InvalidInput, InvalidPackage, TooLarge, UnsupportedMedia
from core.signature import Signature
from core.tasks.base import MediaLimits, Padding, Payload, Task
from core.tasks.registry import task_class
from tests.text_models import SPECIAL, WORDS, class_table, lookup_model, tokenizer, unpacked

TABLE = np.random.default_rng(5).normal(size=(len(SPECIAL) + len(WORDS), 6)).astype(np.float32)
IDS = {token: index for index, token in enumerate([*SPECIAL, *WORDS])}
SENTIMENT = class_table(sad={"sad": 3.0, "bad": 2.0}, happy={"happy": 3.0, "good": 2.0}, dull={"day": 0.5})
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TAGGED = class_table(
    o=dict.fromkeys(("lives", "in", "and", "with", ",", ".", "the", "a", "day", "[CLS]", "[SEP]"), 4.0),
    bper={"anna": 4.0, "bob": 4.0},
    iper={},
    bloc={"new": 4.0, "paris": 4.0},
    iloc={"york": 4.0, "##s": 4.0, "cafe": 4.0},
)


class Bound:
    """A task on a loaded model."""

    def __init__(
        self, root: Path, task: str, config: Mapping[str, Any], limits: MediaLimits | None = None
    ) -> None:
        self.engine = OnnxEngine()
        self.signature: Signature = self.engine.load(root / "model.onnx", EngineOptions(threads=1))
        self.task: Task = task_class(task)(config, self.signature, root, limits or MediaLimits())

    def ask(self, *texts: str, **parameters: Any) -> list[dict[str, Any]]:
        prepared = self.task.preprocess(payloads(*texts), parameters)
        return self.task.postprocess(self.engine.run(prepared.inputs), prepared.contexts, parameters)


def payloads(*texts: str) -> list[Payload]:
    return [Payload(text.encode(), "text/plain") for text in texts]


def bound(folder: Path, task: str, model: bytes, config: Mapping[str, Any] | None = None, **how: Any) -> Bound:
    return Bound(unpacked(folder, model, how.pop("made", None)), task, config or {}, **how)


def rows(text: str) -> np.ndarray[Any, Any]:
    return np.stack([TABLE[IDS[token]] for token in ("[CLS]", *text.split(), "[SEP]")])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "none"])
def test_embeddings_are_pooled_without_padding(tmp_path: Path, pooling: str, normalize: bool) -> None:
    config = {"postprocess": {"pooling": pooling, "normalize": normalize}}
    found = bound(tmp_path, "text-embedding", lookup_model(TABLE, pooled=pooling == "none"), config)
    texts = ["anna lives in new york", "good day"]
    answers = found.ask(*texts) if pooling != "none" else [found.ask(text)[0] for text in texts]
    for text, answer in zip(texts, answers, strict=True):
        expected = {"mean": rows(text).mean(0), "cls": rows(text)[0], "none": rows(text).sum(0)}[pooling]
        if normalize:
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(answer["embedding"], expected, rtol=1e-5, atol=1e-6)
        assert answer["tokens"] == len(text.split()) + 2
        assert answer["truncated"] is False
        if not normalize:
            inputs = found.task.preprocess(payloads(text), {}).inputs
            padded = {name: np.pad(array, ((0, 0), (0, 3))) for name, array in inputs.items()}
            pooled = found.task.pooled(config, found.signature)
            assert pooled is not None
            inputs = inputs if pooling == "none" else padded
            vectors = pooled.of(found.engine.run(inputs), inputs)
            np.testing.assert_allclose(vectors, [answer["embedding"]], rtol=1e-5, atol=1e-6)


def test_texts_are_padded_to_the_longest_and_say_how_long_they_are(tmp_path: Path) -> None:
    found = bound(tmp_path, "text-embedding", lookup_model(TABLE))
    prepared = found.task.preprocess(payloads("a", "a good day, anna"), {})
    assert prepared.lengths == [3, 7]
    assert prepared.inputs["input_ids"].tolist()[0][3:] == [0] * 4
    assert prepared.inputs["attention_mask"].tolist() == [[1] * 3 + [0] * 4, [1] * 7]
    assert prepared.inputs["input_ids"].dtype == np.int64
    assert prepared.padding["input_ids"] == Padding(0)
    parts = prepared.each()
    assert [part["attention_mask"].shape for part in parts] == [(1, 3), (1, 7)]


def test_a_model_of_fixed_length_gets_that(tmp_path: Path) -> None:
    found = bound(tmp_path, "text-embedding", lookup_model(TABLE, length=8))
    prepared = found.task.preprocess(payloads("a", "good day " * 20), {})
    assert prepared.lengths is None
    assert prepared.inputs["input_ids"].shape == (2, 8)
    assert [one["tokens"] for one in found.ask("a", "good day " * 20)] == [3, 8]


def test_what_is_too_long_is_cut_or_refused(tmp_path: Path) -> None:
    cut = bound(tmp_path / "cut", "text-embedding", lookup_model(TABLE), {"preprocess": {"max_tokens": 5}})
    long = cut.ask("anna lives in new york")[0]
    assert (long["tokens"], long["truncated"]) == (5, True)
    expected = rows("anna lives in").mean(0)  # with the [SEP] that ends every text
    np.testing.assert_allclose(long["embedding"], expected / np.linalg.norm(expected), rtol=1e-5)
    config = {"preprocess": {"max_tokens": 5, "too_long": "refuse"}}
    strict = bound(tmp_path / "refuse", "text-embedding", lookup_model(TABLE), config)
    assert strict.ask("anna lives in")[0]["tokens"] == 5
    with pytest.raises(InvalidInput, match="Text 2 of 2: The text has 7 tokens, and the model takes 5"):
        strict.ask("a", "anna lives in new york")


def test_the_tokenizers_own_limit_is_kept(tmp_path: Path) -> None:
    made = tokenizer()
    made.enable_truncation(6)
    made.enable_padding(length=10)
    found = bound(tmp_path, "text-embedding", lookup_model(TABLE), made=made)
    assert found.ask("a " * 20)[0]["tokens"] == 6
    assert found.ask("a")[0]["tokens"] == 3


def test_odd_texts_get_an_answer_and_bad_ones_a_sentence(tmp_path: Path) -> None:
    limits = MediaLimits(max_text_bytes=1000)
    found = bound(tmp_path, "text-embedding", lookup_model(TABLE), limits=limits)
    for text in ("🙂🙃", "a\x00b\x07", "x" * 900, "\u200b", "ﷺ ǅ ß", "\ufeffa"):
        assert np.isfinite(found.ask(text)[0]["embedding"]).all()
    for data, error in (
        (b"", InvalidInput),
        (b" \n ", InvalidInput),
        (b"a" * 1001, TooLarge),
        (b"\xed\xa0\x80", UnsupportedMedia),
        (b"a\xff", InvalidInput),
    ):
        with pytest.raises(error):
            found.task.preprocess([Payload(data, "text/plain")], {})


def test_classes_of_texts(tmp_path: Path) -> None:
    config = {"labels": ["sad", "happy", "dull"]}
    found = bound(tmp_path, "text-classification", lookup_model(SENTIMENT, pooled=True), config)
    best = found.ask("a happy day")[0]
    assert [one["label"] for one in best["predictions"]] == ["happy", "dull", "sad"]
    powers = np.exp([0, 3, 0.5])
    np.testing.assert_allclose(best["predictions"][0]["score"], powers[1] / powers.sum(), rtol=1e-5)
    assert (best["tokens"], best["truncated"]) == (5, False)
    assert len(found.ask("sad", top_k=1)[0]["predictions"]) == 1
    with pytest.raises(InvalidInput, match="1 to 3"):
        found.ask("sad", top_k=4)
    config["postprocess"] = {"activation": "sigmoid"}  # type: ignore[assignment]
    several = bound(tmp_path, "text-classification", lookup_model(SENTIMENT, pooled=True), config)
    np.testing.assert_allclose(several.ask("sad")[0]["predictions"][0]["score"], 1 / (1 + np.exp(-3)), rtol=1e-5)


def entities(answer: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    return [(one["label"], one["text"], one["start"], one["end"]) for one in answer["entities"]]


def test_entities_are_spans_of_the_text_as_it_was_sent(tmp_path: Path) -> None:
    found = bound(tmp_path, "token-classification", lookup_model(TAGGED), {"labels": TAGS})
    sent = "  Anna\u0007 lives\n in New  York and Paris, with Bobs."
    answer = found.ask(sent)[0]
    assert entities(answer) == [
        ("PER", "Anna", 2, 6),
        ("LOC", "New  York", sent.index("New"), sent.index("New") + 9),
        ("LOC", "Paris", sent.index("Paris"), sent.index("Paris") + 5),
        ("PER", "Bobs", sent.index("Bobs"), sent.index("Bobs") + 4),
    ]
    assert all(0.9 < one["score"] <= 1 for one in answer["entities"])
    assert answer["tokens"] == 14
    decomposed = "Anna, New Cafe\u0301 and 👩‍👩‍👧 Bob"
    texts = [text for _, text, _, _ in entities(found.ask(decomposed)[0])]
    assert texts == ["Anna", "New Cafe\u0301", "Bob"]


def test_neighbours_that_begin_anew_are_two_entities(tmp_path: Path) -> None:
    found = bound(tmp_path, "token-classification", lookup_model(TAGGED), {"labels": TAGS})
    assert [text for _, text, _, _ in entities(found.ask("anna bob new paris york")[0])] == [
        "anna",
        "bob",
        "new",
        "paris york",
    ]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("word", [("PER", "bobs"), ("LOC", "new york")]),
        ("token", [("PER", "bob"), ("LOC", "s"), ("LOC", "new york")]),
        ("none", [("B-PER", "bob"), ("I-LOC", "s"), ("B-LOC", "new"), ("I-LOC", "york")]),
    ],
)
def test_tokens_become_entities_as_asked(
    tmp_path: Path, aggregation: str, expected: Sequence[tuple[str, str]]
) -> None:
    config = {"labels": TAGS, "postprocess": {"aggregation": aggregation}}
    found = bound(tmp_path, "token-classification", lookup_model(TAGGED), config)
    answer = found.ask("bobs in new york")[0]
    assert [(label, text) for label, text, _, _ in entities(answer)] == list(expected)


def test_entities_of_a_batch_are_those_of_each_alone(tmp_path: Path) -> None:
    found = bound(tmp_path, "token-classification", lookup_model(TAGGED), {"labels": TAGS})
    texts = ["anna", "bob lives in new york , with anna", "a day"]
    assert found.ask(*texts) == [found.ask(text)[0] for text in texts]


@pytest.mark.parametrize(
    ("task", "model", "config", "complaint"),
    [
        ("text-embedding", {"inputs": ["pixels"]}, {}, "takes input_ids; this one takes pixels"),
        ("text-embedding", {"inputs": ["input_ids", "bbox"]}, {}, "input bbox is none that a tokenizer makes"),
        ("text-embedding", {}, {"preprocess": {"tokenizer": "other.json"}}, "is not in the model's package"),
        ("text-embedding", {}, {"preprocess": {"tokenizer": "../a.json"}}, "must lie in the model's package"),
        ("text-embedding", {}, {"preprocess": {"tokenizer": "model.onnx"}}, "must be a tokenizer.json"),
        ("text-embedding", {}, {"preprocess": {"max_tokens": 2}}, "nothing of a text is left"),
        ("text-embedding", {}, {"postprocess": {"output": "nothing"}}, "There is no output 'nothing'"),
        ("text-embedding", {"pooled": True}, {"postprocess": {"pooling": "mean"}}, "pooling mean needs 3 axes"),
        ("text-embedding", {}, {"postprocess": {"pooling": "none"}}, "pooling none needs 2 axes"),
        ("text-classification", {"pooled": True}, {"labels": ["a"]}, "There are 1 labels, but .* 6 classes"),
        ("token-classification", {"pooled": True}, {"labels": TAGS}, "must be scores"),
        ("token-classification", {}, {"labels": TAGS}, "There are 5 labels, but .* 6 classes"),
        ("token-classification", {}, {}, "needs labels"),
    ],
)
def test_what_does_not_fit_is_said_when_bound(
    tmp_path: Path, task: str, model: dict[str, Any], config: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidPackage, match=complaint):
        bound(tmp_path, task, lookup_model(TABLE, **model), config)


def test_a_tokenizer_of_another_model_is_found_by_probing(tmp_path: Path) -> None:
    found = bound(tmp_path / "fits", "text-embedding", lookup_model(TABLE))
    found.task.probe(found.engine.run)
    other = bound(tmp_path / "other", "text-embedding", lookup_model(TABLE), made=tokenizer([*WORDS, "zebra"]))
    assert other.ask("anna")  # plain texts would not tell
    with pytest.raises(InvalidPackage, match=f"tokens up to {len(TABLE)}, and the model fewer"):
        other.task.probe(other.engine.run)


def test_a_limit_beyond_the_models_positions_is_found_by_probing(tmp_path: Path) -> None:
    found = bound(tmp_path / "long", "text-embedding", lookup_model(TABLE, positions=32))
    with pytest.raises(InvalidPackage, match=r"does not take 512 tokens; set preprocess\.max_tokens"):
        found.task.probe(found.engine.run)
    config = {"preprocess": {"max_tokens": 32}}
    bound(tmp_path / "fits", "text-embedding", lookup_model(TABLE, positions=32), config).task.probe(
        found.engine.run
    )


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'pulvinar\[text\]'"):
        bound(tmp_path, "text-embedding", lookup_model(TABLE))
