"""`token-classification`: a text in, the names, places and the like in it out, with where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from core.errors import InvalidPackage, RunFailed
from core.signature import Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Tensors
from core.tasks.class_scores import Scores, activate
from core.tasks.config import TaskConfig, parse
from core.tasks.labels import read_labels
from core.tasks.text_input import TextConfig, Tokens
from core.tasks.text_task import TextTask


class PostprocessConfig(TaskConfig):
    """How tokens become entities: a `word` has the class of its first token; `token` takes each by itself."""

    aggregation: Literal["word", "token", "none"] = "word"
    outside: str = Field("O", max_length=500)


class TokenClassificationConfig(TaskConfig):
    """The manifest's section; `labels` is a list, or the name of a file in the package, one label a line."""

    preprocess: TextConfig = TextConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    labels: list[str] | str | None = None


@dataclass(slots=True)
class Span:
    """Neighbouring tokens of one entity: its label, the scores of its parts, and its place in the cleaned text."""

    label: str
    scores: list[float]
    start: int
    end: int


class TokenClassification(TextTask):
    """Answers `{"entities": [{label, score, start, end, text}], "tokens": n, "truncated": false}` for each text.

    `start` and `end` count the characters (code points) of the text as it was sent; `text` is what stands there.
    Tags `B-` and `I-` are joined as in the CoNLL-2003 task (IOB2; an `I-` without a `B-` begins an entity too).
    """

    name: ClassVar[str] = "token-classification"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(TokenClassificationConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        checked = parse(TokenClassificationConfig, config)
        super().__init__(checked.preprocess, signature, root, limits)
        self._settings = checked.postprocess
        self._output = signature.outputs[0].name
        self._labels = _labels(read_labels(checked.labels, root), signature)

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """See TextInput."""
        return self._input.prepare(payloads)

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer a text. Raises RunFailed where the scores are none, or too few."""
        output = outputs[self._output].astype(np.float32, copy=False)
        return [
            {"entities": self._entities(scores, tokens), **tokens.to_json()}
            for scores, tokens in zip(output, contexts, strict=True)
        ]

    def _entities(self, logits: Scores, tokens: Tokens) -> list[dict[str, Any]]:
        if len(logits) < tokens.count or logits.shape[1] != len(self._labels):
            raise RunFailed(
                f"The model answered scores of shape {list(logits.shape)} for {tokens.count} tokens and "
                f"{len(self._labels)} labels."
            )
        scores = activate(logits[: tokens.count], "softmax")
        if not np.isfinite(scores).all():
            raise RunFailed("The model answered scores that hold NaN or infinity.")
        spans = _spans(scores, tokens, self._labels, by_word=self._settings.aggregation == "word")
        if self._settings.aggregation != "none":
            spans = _joined(spans, self._settings.outside)
        return [_to_json(span, tokens) for span in spans if span.label != self._settings.outside]


def _spans(scores: Scores, tokens: Tokens, labels: Sequence[str], *, by_word: bool) -> Iterator[Span]:
    """The tokens of the text itself, or its words, each with the label of its first token."""
    best = scores.argmax(axis=1)
    last_word: int | None = None
    span: Span | None = None
    for row, place in enumerate(tokens.kept):
        if tokens.encoding.special_tokens_mask[place]:
            continue
        start, end = tokens.encoding.offsets[place]
        word = tokens.encoding.word_ids[place]
        if by_word and span is not None and word is not None and word == last_word:
            span.end = end
            continue
        if span is not None:
            yield span
        last_word, index = word, int(best[row])
        span = Span(labels[index], [float(scores[row, index])], start, end)
    if span is not None:
        yield span


def _joined(spans: Iterable[Span], outside: str) -> Iterator[Span]:
    entity: Span | None = None
    for span in spans:
        tag, _, kind = span.label.partition("-")
        if tag not in ("B", "I") or not kind:
            tag, kind = "I", span.label
        if entity is not None and kind == entity.label and tag != "B":
            entity.end = span.end
            entity.scores += span.scores
            continue
        if entity is not None:
            yield entity
        entity = None if span.label == outside else Span(kind, list(span.scores), span.start, span.end)
    if entity is not None:
        yield entity


def _to_json(span: Span, tokens: Tokens) -> dict[str, Any]:
    start, end = tokens.cleaned.original(span.start, span.end)
    score = sum(span.scores) / len(span.scores)
    return {"label": span.label, "score": score, "start": start, "end": end, "text": tokens.sent[start:end]}


def _labels(labels: list[str] | None, signature: Signature) -> list[str]:
    spec = signature.outputs[0]
    if len(spec.shape) != 3 or spec.dtype in ("BYTES", "BOOL"):
        raise InvalidPackage(
            f"The output {spec.name} ({spec.dtype}, {list(spec.shape)}) must be scores [batch, tokens, classes]."
        )
    classes = spec.shape[2]
    if labels is None:
        raise InvalidPackage("The task token-classification needs labels, such as O, B-PER, I-PER.")
    if classes not in (-1, len(labels)):
        raise InvalidPackage(f"There are {len(labels)} labels, but the output {spec.name} has {classes} classes.")
    return labels
