"""What the Playground makes of answers, and of calls as code."""

from __future__ import annotations

import json
import shlex
from typing import Any

from app.dashboard.pages.playground.marks import pieces
from app.dashboard.pages.playground.shown import Entity, pretty, shown
from app.dashboard.pages.playground.snippets import Same, snippets


def answer(**content: Any) -> dict[str, Any]:
    timing = {"queue": 1.0, "preprocess": 2.0, "infer": 3.0, "postprocess": 1.0, "total": 10.0}
    return {"request_id": "r", "model": "m", "version": 2, "task": "t", **content, "timing_ms": timing}


def test_the_parts_of_the_time_make_the_whole() -> None:
    found = shown(answer(text="hello"))
    assert found.timing == [("queue", 1), ("preprocess", 2), ("infer", 3), ("postprocess", 1), ("between", 3)]
    assert found.texts == [("text", "hello")]


def test_what_a_field_is_its_form_says() -> None:
    found = shown(
        answer(
            things=[
                {"thing": "cup", "score": 0.5, "box": [1, 2, 3, 4], "classes": [{"label": "x", "score": 0.25}]}
            ],
            lines=[{"text": "hi", "polygon": [[0, 0], [9, 0], [9, 9]]}],
            predictions=[{"label": "cat", "index": 0, "score": 0.75}, {"label": "dog", "index": 1, "score": None}],
            entities=[{"label": "PER", "score": 1.0, "start": 0, "end": 4, "text": "Anna"}],
            segments=[{"start": 0.5, "end": 2.0, "text": "so"}],
            masks=[{"label": "table", "index": 9, "pixels": 5, "share": 0.5}],
            embedding=[0.5] * 12,
            outputs=[{"name": "y", "dtype": "FP32", "shape": [1, 2], "data": [1.0, None]}],
            nothing=[],
            tokens=6,
            language="en",
            state={"deep": [1]},
        )
    )
    cup, line = found.shapes
    assert (cup.label, cup.points, cup.detail) == ("cup", "1.0,2.0 3.0,2.0 3.0,4.0 1.0,4.0", "x 25%")
    assert (line.label, line.number, line.score) == ("hi", 1, None)
    assert [(bar.label, bar.share) for bar in found.bars[0][1]] == [("cat", 0.75), ("dog", 0.0)]
    assert found.entities[0].text == "Anna"
    assert (found.spans[0].start, found.spans[0].text) == (0.5, "so")
    assert (found.regions[0].share, found.regions[0].tone) == (0.5, 1)
    assert found.vectors[0][:2] == ("embedding", 12)
    assert (found.tensors[0].shape, found.tensors[0].values) == ("1 × 2", "1, None")
    assert found.empty == ["nothing"]
    assert found.facts == [("tokens", "6"), ("language", "en")]
    assert [name for name, _ in found.others] == ["state"]


def test_scores_above_one_keep_their_proportion() -> None:
    (_, bars), *_ = shown(answer(scores=[{"label": "a", "score": 4.0}, {"label": "b", "score": 1.0}])).bars
    assert [bar.share for bar in bars] == [1.0, 0.25]


def test_what_is_long_is_cut_short_and_its_length_told() -> None:
    text = pretty({"numbers": list(range(1000)), "mask": "A" * 5000, "prose": "a word " * 100})
    assert "976 more" in text
    assert "4,952 more characters" in text
    assert "a word " * 100 in text
    assert len(text) < 2000


def test_code_of_a_call_survives_hostile_words() -> None:
    hostile = 'it\'s "$(rm -rf ~)" \\ `x` </script>'
    for modality in ("image", "text"):
        same = Same("cats", modality, hostile, {"labels": [hostile], "sure": True})
        code = snippets("http://host:8000", same)
        words = shlex.split(code.curl.replace("\\\n", " "))
        assert words[0] == "curl"
        assert words[-1] == "http://host:8000/api/v1/inference/cats"
        assert any("$(rm -rf ~)" in word for word in words)
        compile(code.python, "snippet", "exec")
        assert "True" in code.python or '"sure": true' in code.python
        assert "/api/v1/inference/cats" in code.javascript


def test_code_asks_for_the_version_that_was_asked_for() -> None:
    for modality in ("image", "text"):
        code = snippets("http://host:8000", Same("cats", modality, "x", version=3))
        for text in (code.request, code.curl, code.python, code.javascript):
            assert "/api/v1/inference/cats?version=3" in text


def test_a_raw_request_is_as_it_goes_over_the_line() -> None:
    said = snippets("http://host:8000", Same("cats", "text", "hello", {"top_k": 2})).request
    head, body = said.split("\n\n", 1)
    assert head.splitlines()[:2] == ["POST /api/v1/inference/cats HTTP/1.1", "Host: host:8000"]
    assert json.loads(body) == {"inputs": "hello", "parameters": {"top_k": 2}}
    form = snippets(
        "http://host:8000", Same("cats", "image", None, {"top_k": 2}, sent="2.1 KiB of image/png")
    ).request
    assert "(2.1 KiB of image/png)" in form
    assert 'name="image"' in form
    assert '{"top_k": 2}' in form


def test_names_are_marked_in_their_text() -> None:
    def found(start: int, end: int, label: str = "PER") -> Entity:
        return Entity(label, "", 0.5, start, end)

    text = "Anna saw Paris."
    marked = pieces(text, [found(9, 14, "LOC"), found(0, 4), found(2, 6), found(12, 99)])
    assert [(one.text, one.entity.label if one.entity else "") for one in marked] == [
        ("Anna", "PER"),
        (" saw ", ""),
        ("Paris", "LOC"),
        (".", ""),
    ]
    assert "".join(one.text for one in pieces(text, [found(3, 15)])) == text
    assert pieces(text, []) == []
    assert pieces("", [found(0, 4)]) == []
