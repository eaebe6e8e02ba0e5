"""`text-embedding`: a text in, one vector out that stands close to those of texts that say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np

from core.errors import InvalidPackage
from core.signature import Signature, TensorSpec
from core.tasks.base import DEFAULT_LIMITS, MediaLimits, Payload, Prepared, Tensors
from core.tasks.config import TaskConfig, parse
from core.tasks.text_input import TextConfig, Tokens
from core.tasks.text_task import TextTask
from core.tasks.vectors import Pooled, Vectors, checked, normalized

_MASK: Final = "attention_mask"


class PostprocessConfig(TaskConfig):
    """From the model's output to one vector a text."""

    output: str | None = None
    pooling: Literal["mean", "cls", "none"] | None = None
    normalize: bool = True


class EmbeddingConfig(TaskConfig):
    """The manifest's section."""

    preprocess: TextConfig = TextConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


class TextEmbedding(TextTask):
    """Answers `{"embedding": […], "tokens": n, "truncated": false}` for each text.

    `mean` is the mean over a text's tokens and `cls` the first token's vector, as sentence-transformers' pooling
    (sbert.net, "Pooling"); `none` takes what the graph has pooled. `normalize` divides by the Euclidean length.
    """

    name: ClassVar[str] = "text-embedding"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Raises InvalidPackage with the field's name."""
        parse(EmbeddingConfig, config)

    @classmethod
    def pooled(cls, config: Mapping[str, Any], signature: Signature) -> Pooled:
        """See Task."""
        section = parse(EmbeddingConfig, config).postprocess
        output = _output(section.output, signature)
        mask = next((spec.name for spec in signature.inputs if spec.name == _MASK), "")
        return Pooled(output.name, _pooling(section, output), mask=mask)

    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        section = parse(EmbeddingConfig, config)
        super().__init__(section.preprocess, signature, root, limits)
        self._output = _output(section.postprocess.output, signature)
        self._pooling = _pooling(section.postprocess, self._output)
        self._normalize = section.postprocess.normalize
        wanted = 2 if self._pooling == "none" else 3
        if len(self._output.shape) != wanted:
            raise InvalidPackage(
                f"The output {self._output.name} has the shape {list(self._output.shape)}, and pooling "
                f"{self._pooling} needs {wanted} axes: [batch, size], or [batch, tokens, size] to be pooled."
            )

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """See TextInput."""
        return self._input.prepare(payloads)

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One vector a text. Raises RunFailed where one holds what is no number."""
        vectors = checked(self._pooled(outputs[self._output.name].astype(np.float32, copy=False), contexts))
        if self._normalize:
            vectors = normalized(vectors)
        return [
            {"embedding": vector, **tokens.to_json()}
            for vector, tokens in zip(vectors.tolist(), contexts, strict=True)
        ]

    def _pooled(self, states: Vectors, contexts: Sequence[Tokens]) -> Vectors:
        if self._pooling == "none":
            return states
        if self._pooling == "cls":
            return states[:, 0]
        rows = [state[: tokens.count].mean(axis=0) for state, tokens in zip(states, contexts, strict=True)]
        return np.stack(rows)


def _pooling(section: PostprocessConfig, output: TensorSpec) -> str:
    return section.pooling or ("none" if len(output.shape) == 2 else "mean")


def _output(name: str | None, signature: Signature) -> TensorSpec:
    """The output of that name, or `sentence_embedding` where there is one, or the first."""
    names = [spec.name for spec in signature.outputs]
    if name is not None and name not in names:
        raise InvalidPackage(f"There is no output {name[:80]!r}; the model has {', '.join(names)[:200]}.")
    chosen = name or ("sentence_embedding" if "sentence_embedding" in names else names[0])
    spec = signature.outputs[names.index(chosen)]
    if spec.dtype not in ("FP32", "FP16", "BF16", "FP64"):
        raise InvalidPackage(f"The output {spec.name} is {spec.dtype}, and embeddings are floats.")
    return spec
