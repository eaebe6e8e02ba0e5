"""Packages of small made text models with a real tokenizer, for tests: a table of vectors, looked up."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "anna",
    "lives",
    "in",
    "new",
    "york",
    "and",
    "paris",
    "with",
    "bob",
    "##s",
    ",",
    ".",
    "happy",
    "sad",
    "good",
    "bad",
    "day",
    "the",
    "a",
    "cafe",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tokenizer(words: Sequence[str] = WORDS, *, lowercase: bool = True) -> Tokenizer:
    """WordPiece over these words, as BERT's: `[CLS] … [SEP]`."""
    vocab = {word: index for index, word in enumerate([*SPECIAL, *words])}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def lookup_model(
    table: np.ndarray[Any, Any],
    *,
    inputs: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"),
    pooled: bool = False,
    positions: int | None = None,
    length: int | str = "tokens",
) -> bytes:
    """Answers `table[input_ids]`: [batch, tokens, width], or with `pooled` its sum over tokens, [batch, width].

    With `positions` no text may be longer than that.
    """
    nodes = [helper.make_node("Gather", ["table", inputs[0]], ["looked_up"], axis=0)]
    weights = [numpy_helper.from_array(table.astype(np.float32), "table")]
    last = "looked_up"
    if positions is not None:
        weights += [
            numpy_helper.from_array(np.zeros((positions, table.shape[1]), np.float32), "positions"),
            numpy_helper.from_array(np.array(0, np.int64), "zero"),
            numpy_helper.from_array(np.array(1, np.int64), "one"),
        ]
        nodes += [
            helper.make_node("Shape", [inputs[0]], ["shape"]),
            helper.make_node("Gather", ["shape", "one"], ["length"], axis=0),
            helper.make_node("Range", ["zero", "length", "one"], ["places"]),
            helper.make_node("Gather", ["positions", "places"], ["moved"], axis=0),
            helper.make_node("Add", [last, "moved"], ["placed"]),
        ]
        last = "placed"
    shape: list[int | str] = ["batch", length, table.shape[1]]
    if pooled:
        weights.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
        nodes.append(helper.make_node("ReduceSum", [last, "axes"], ["output"], keepdims=0))
        shape = ["batch", table.shape[1]]
    else:
        nodes.append(helper.make_node("Identity", [last], ["output"]))
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", length]) for name in inputs],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def package(model: bytes, manifest: Mapping[str, Any], made: Tokenizer | None = None) -> bytes:
    """A zip of the model, its tokenizer and its `model.yaml`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.onnx", model)
        archive.writestr("tokenizer.json", (made or tokenizer()).to_str())
        archive.writestr("model.yaml", yaml.safe_dump(dict(manifest)))
    return file.getvalue()


def unpacked(folder: Path, model: bytes, made: Tokenizer | None = None) -> Path:
    """The same as files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    (made or tokenizer()).save(str(folder / "tokenizer.json"))
    return folder


def class_table(**scores: Mapping[str, float]) -> np.ndarray[Any, Any]:
    """A table with a column a class: `class_table(positive={"happy": 2.0})`; other words score 0."""
    tokens = [*SPECIAL, *WORDS]
    table = np.zeros((len(tokens), len(scores)), np.float32)
    for column, words in enumerate(scores.values()):
        for word, score in words.items():
            table[tokens.index(word), column] = score
    return table
