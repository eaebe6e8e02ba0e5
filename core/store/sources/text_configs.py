"""The manifest of a text model out of the files beside it.

Their fields are those of the transformers library's configurations, of `tokenizer.json`, and of what
sentence-transformers keeps (`1_Pooling/config.json`, `sentence_bert_config.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Config = Mapping[str, Any]

EMBEDDING: Final = "text-embedding"
TASKS: Final = (EMBEDDING, "text-classification", "token-classification")

_SAID: Final = {"feature-extraction": EMBEDDING, "sentence-similarity": EMBEDDING}
"""The hub's words for it."""
_HEADS: Final = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
}
_LONGEST: Final = 1_000_000
"""What tokenizers say where they mean no limit is more."""


def text_task(config: Config, tokenizer: Config, pooling: Config, said: str | None) -> str | None:
    """Which text task the model is for, as far as the files and their source tell; None for no text model."""
    if not isinstance(tokenizer.get("model"), Mapping):
        return None
    if said is not None:
        said = _SAID.get(said, said)
        return said if said in TASKS else None
    names = config.get("architectures")
    for name in names if isinstance(names, list) else []:
        for head, task in _HEADS.items():
            if str(name).endswith(head):
                return task
    return EMBEDDING if any(key.startswith("pooling_mode") for key in pooling) else None


def text_fields(task: str, config: Config, tokenizer: Config, pooling: Config, sentence: Config) -> dict[str, Any]:
    """The manifest's `preprocess` and `postprocess`, as far as the files tell."""
    fields: dict[str, Any] = {}
    if longest := _longest(config, tokenizer, sentence):
        fields["preprocess"] = {"max_tokens": longest}
    if task == EMBEDDING and (how := _pooling(pooling)):
        fields["postprocess"] = {"pooling": how}
    if task == "text-classification" and config.get("problem_type") == "multi_label_classification":
        fields["postprocess"] = {"activation": "sigmoid"}
    return fields


def _longest(config: Config, tokenizer: Config, sentence: Config) -> int | None:
    """What sentence-transformers keeps of a text, or the tokenizer; no more than the model has positions for."""
    truncation = tokenizer.get("truncation")
    own = truncation.get("max_length") if isinstance(truncation, Mapping) else None
    positions = config.get("max_position_embeddings")
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet") and isinstance(positions, int):
        positions -= 2  # their first two are taken
    wanted = sentence.get("max_seq_length") or own or positions
    found = [one for one in (wanted, positions) if isinstance(one, int) and 0 < one <= _LONGEST]
    return min(found) if found else None


def _pooling(pooling: Config) -> str | None:
    if pooling.get("pooling_mode_cls_token"):
        return "cls"
    return "mean" if pooling.get("pooling_mode_mean_tokens") else None
