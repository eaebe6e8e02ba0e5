"""Text tasks over HTTP: plain text, JSON and lists; batches of like length; what is refused, and how."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.acceptance.answers import refused
from tests.conftest import Demo
from tests.text_models import SPECIAL, WORDS, class_table, lookup_model, package, tokenizer

TABLE = np.random.default_rng(5).normal(size=(len(SPECIAL) + len(WORDS), 6)).astype(np.float32)
SENTIMENT = class_table(sad={"sad": 3.0, "bad": 2.0}, happy={"happy": 3.0, "good": 2.0})
TAGGED = class_table(
    o={"lives": 2.0, "in": 2.0, "[CLS]": 2.0, "[SEP]": 2.0}, bper={"anna": 4.0}, bloc={"paris": 4.0}
)
MODELS = {
    "embedder": package(lookup_model(TABLE), {"task": "text-embedding"}),
    "mood": package(
        lookup_model(SENTIMENT, pooled=True), {"task": "text-classification", "labels": ["sad", "happy"]}
    ),
    "names": package(lookup_model(TAGGED), {"task": "token-classification", "labels": ["O", "B-PER", "B-LOC"]}),
}
OPTIONS: dict[str, dict[str, Any]] = {"embedder": {"isolation": "process"}}


@pytest.fixture(scope="module")
def texts(demo: Demo) -> Iterator[Demo]:
    """The demo's server with three text models, one of them in a process of its own."""
    for name, model in MODELS.items():
        demo.server.upload(name, model)
        demo.server.deploy(name, **OPTIONS.get(name, {}))
    yield demo
    for name in MODELS:
        left = demo.server.ok("DELETE", f"/models/{name}/deployment")
        demo.server.wait_generation(name, left["generation"], "stopped")
        demo.server.ok("DELETE", f"/models/{name}")


def call(texts: Demo, model: str, text: str, **parameters: Any) -> dict[str, Any]:
    answer = texts.server.infer(model, texts.token, json={"inputs": text, "parameters": parameters})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_plain_text_and_json_say_the_same(texts: Demo) -> None:
    plain = texts.server.infer(
        "mood",
        texts.token,
        content=b"a happy day",
        headers={"Content-Type": "text/plain; charset=utf-8"},
    ).json()
    assert plain["task"] == "text-classification"
    assert [one["label"] for one in plain["predictions"]] == ["happy", "sad"]
    assert (plain["tokens"], plain["truncated"]) == (5, False)
    for inputs in ("a happy day", ["a happy day"], {"text": "a happy day"}):
        answer = texts.server.infer("mood", texts.token, json={"inputs": inputs}).json()
        assert answer["predictions"] == plain["predictions"]
    assert len(call(texts, "mood", "sad", top_k=1)["predictions"]) == 1


def test_entities_stand_where_the_caller_sees_them(texts: Demo) -> None:
    sent = " Anna\nlives in  Paris"
    found = call(texts, "names", sent)["entities"]
    assert [(one["label"], sent[one["start"] : one["end"]]) for one in found] == [
        ("PER", "Anna"),
        ("LOC", "Paris"),
    ]


def test_a_list_is_answered_in_its_order_whatever_the_lengths(texts: Demo) -> None:
    sentences = ["a", "anna lives in new york , with bob . " * 8, "good day", "bad " * 40]
    answer = texts.server.infer("embedder", texts.token, json={"inputs": {"text": sentences}})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [one["tokens"] for one in results] == [3, 74, 4, 42]
    for sentence, one in zip(sentences, results, strict=True):
        alone = call(texts, "embedder", sentence)["embedding"]
        np.testing.assert_allclose(one["embedding"], alone, atol=1e-6)
        assert np.linalg.norm(one["embedding"]) == pytest.approx(1, abs=1e-5)


def test_many_callers_with_texts_of_every_length_get_their_own_answers(texts: Demo) -> None:
    rng = np.random.default_rng(1)
    sentences = [" ".join(rng.choice(WORDS[:20], size=rng.integers(1, 120))) for _ in range(120)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda sentence: call(texts, "embedder", sentence), sentences))
    ids = {token: index for index, token in enumerate([*SPECIAL, *WORDS])}
    for sentence, answer in zip(sentences, answers, strict=True):
        rows = TABLE[[ids["[CLS]"], *[ids[word] for word in sentence.split() if word != "##s"], ids["[SEP]"]]]
        if "##s" not in sentence:
            expected = rows.mean(axis=0)
            np.testing.assert_allclose(answer["embedding"], expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code", "says"),
    [
        (b"", "text/plain", 400, "bad_request", "empty"),
        (b" \n\t ", "text/plain", 422, "invalid_input", "blank"),
        (b"\x00\x07", "text/plain", 422, "invalid_input", "blank"),
        (b"caf\xe9", "text/plain", 422, "invalid_input", "not valid UTF-8: byte 3"),
        (b"a \xed\xa0\x80", "text/plain", 422, "invalid_input", "surrogates"),
        (b"a" * ((1 << 20) + 1), "text/plain", 413, "too_large", "1048576"),
        ("hi".encode("utf-16"), "text/plain; charset=utf-16", 415, "unsupported_media", "UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png", 415, "unsupported_media", "PNG"),
        (b'{"inputs": "\\ud83d"}', "application/json", 400, "malformed_body", "not valid JSON"),
        (b'{"inputs": ["a", " "]}', "application/json", 422, "invalid_input", "Text 2 of 2"),
        (b'{"inputs": [1]}', "application/json", 422, "invalid_input", "a text or a list of texts"),
        (b'{"inputs": "a", "parameters": {"top_k": 9}}', "application/json", 422, "invalid_input", "top_k"),
    ],
)
def test_what_is_no_text_is_refused(
    texts: Demo, body: bytes, content_type: str, status: int, code: str, says: str
) -> None:
    answer = texts.server.infer("mood", texts.token, content=body, headers={"Content-Type": content_type})
    error = refused(answer, status)
    assert error["code"] == code
    assert says in error["message"]


def test_predict_takes_texts_to_their_default(texts: Demo) -> None:
    texts.server.api("POST", "/models/activate", json={"model": "mood", "modality": "text"})
    try:
        for options in ({"content": b"a happy day"}, {"json": {"inputs": "a happy day"}}):
            answer = texts.server.client.post("/predict", headers={"X-Access-Token": texts.token}, **options)
            assert answer.status_code == 200, answer.text
            said = answer.json()
            assert (said["model"], said["modality"], said["predictions"][0]["label"]) == ("mood", "text", "happy")
    finally:
        texts.server.api("POST", "/models/activate", json={"model": None, "modality": "text"})


def test_a_megabyte_of_text_and_emoji_are_answered(texts: Demo) -> None:
    assert call(texts, "mood", "happy " * 170_000)["truncated"] is True
    assert call(texts, "mood", "👩‍👩‍👧 happy \u202e")["predictions"][0]["label"] == "happy"


def test_a_tokenizer_of_another_model_is_found_at_validation(texts: Demo) -> None:
    other = package(lookup_model(TABLE), {"task": "text-embedding"}, tokenizer([*WORDS, "zebra"]))
    assert texts.server.send_upload("stranger", other).status_code == 202
    checked = texts.server.wait_version("stranger", 1)
    assert checked["status"] == "invalid"
    report = checked["report"]
    (failed,) = [row for row in report if not row["ok"]]
    assert failed["check"] == "example"
    assert "The tokenizer does not fit the model" in failed["detail"]
    texts.server.ok("DELETE", "/models/stranger")
