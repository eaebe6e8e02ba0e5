"""`text-classification`: a text in, the likeliest classes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from core.signature import Signature
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Tensors
from core.tasks.class_scores import ClassScores, PostprocessConfig
from core.tasks.config import TaskConfig, parse
from core.tasks.labels import read_labels
from core.tasks.text_input import TextConfig
from core.tasks.text_task import TextTask


class TextClassificationConfig(TaskConfig):
    """The manifest's section; `labels` is a list, or the name of a file in the package, one label a line."""

    preprocess: TextConfig = TextConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    labels: list[str] | str | None = None


class TextClassification(TextTask):
    """Answers `{"predictions": [{label, index, score}], "tokens": n, "truncated": false}` for each text.

    `parameters.top_k` overrides how many.
    """

    name: ClassVar[str] = "text-classification"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(TextClassificationConfig, config)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        checked = parse(TextClassificationConfig, config)
        super().__init__(checked.preprocess, signature, root, limits)
        self._scores = ClassScores(checked.postprocess, read_labels(checked.labels, root), signature)

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """See TextInput; a wrong `top_k` is refused before the work."""
        self._scores.wanted(parameters)
        return self._input.prepare(payloads)

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One answer a text."""
        found = self._scores.best(outputs, parameters)
        return [{"predictions": best, **tokens.to_json()} for best, tokens in zip(found, contexts, strict=True)]
