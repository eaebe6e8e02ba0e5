"""Two small BERTs, which classify texts and tag their words, and what transformers answers with them.

`python -m tests.transformers_texts` makes the files in `FOLDER` anew; tests read them and need no PyTorch.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from tests.text_models import SPECIAL, WORDS, tokenizer

FOLDER = Path(__file__).parent / "integration" / "tasks" / "transformers_texts"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
CLASSES = ["sad", "happy", "dull", "none"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SENTENCES = [
    "a happy day",
    "Anna lives in New York and Bobs in Paris.",
    "bob , bob , bob",
    "The good, the bad and the sad",
    "new new york york paris paris",
    "unheard words in a cafe with Anna",
    "anna",
    "Paris.",
    "In New York, a day with Bobs and Annas is good",
    "sad sad sad sad happy",
    "cafe, cafe and Cafe",
    "lives",
    "with Anna in the bad New Paris and with Bob in a good new York",
    "day in day with day and day",
    "the cafe lives in the day",
    "happys and bads",
]


def _model(kind: Any, labels: list[str], seed: int) -> Any:
    import torch
    from transformers import BertConfig

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=1.0,  # far from the usual 0.02, so that answers differ from word to word
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
    )
    config._attn_implementation = "eager"  # the others do not trace with a dynamic length
    return kind(config).eval()


def _export(model: Any, path: Path, axes: dict[int, str]) -> None:
    import torch

    class Wrapped(torch.nn.Module):
        """Takes its inputs by place, and answers the scores alone."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.inner(ids, attention_mask=mask, token_type_ids=types).logits

    ids = torch.randint(4, 20, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0  # without padding in the example, the mask may be traced away
    torch.onnx.export(
        Wrapped(),
        (ids, mask, torch.zeros_like(ids)),
        str(path),
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes={**{name: {0: "batch", 1: "tokens"} for name in INPUTS}, "logits": axes},
        opset_version=17,
        dynamo=False,
    )


def main() -> None:
    """Write the models, and the answers of transformers' own pipelines."""
    from transformers import (
        BertForSequenceClassification,
        BertForTokenClassification,
        PreTrainedTokenizerFast,
        pipeline,
    )

    FOLDER.mkdir(exist_ok=True)
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    classifier = _model(BertForSequenceClassification, CLASSES, 5)
    tagger = _model(BertForTokenClassification, TAGS, 11)
    classify = pipeline("text-classification", model=classifier, tokenizer=words, top_k=None)
    tag = pipeline("token-classification", model=tagger, tokenizer=words, aggregation_strategy="first")
    answers = [
        {
            "text": text,
            "classes": {one["label"]: one["score"] for one in classify([text])[0]},
            "entities": [
                {
                    "label": one["entity_group"],
                    "score": float(one["score"]),
                    "start": one["start"],
                    "end": one["end"],
                }
                for one in tag(text)
            ],
        }
        for text in SENTENCES
    ]
    (FOLDER / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    _export(classifier, FOLDER / "classifier.onnx", {0: "batch"})
    _export(tagger, FOLDER / "tagger.onnx", {0: "batch", 1: "tokens"})


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
