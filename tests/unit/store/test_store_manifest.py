from __future__ import annotations

import json

import pytest
import yaml

from core.errors import InvalidPackage
from core.store.manifest import manifest_from_json, parse_manifest

GOOD = """
task: image-classification
model: net.onnx
description: Cats and dogs
labels: [cat, dog]
preprocess:
  layout: NCHW
  resize: {mode: center_crop, size: 224}
  mean: [0.5, 0.5, 0.5]
postprocess: {activation: softmax, top_k: 2}
batching: {max_batch: 8, max_delay_ms: 2}
"""


def test_a_manifest_is_read_and_comes_back_from_json() -> None:
    manifest = parse_manifest(GOOD)
    assert manifest.task_config() == {
        "labels": ["cat", "dog"],
        "preprocess": {
            "layout": "NCHW", "resize": {"mode": "center_crop", "size": 224}, "mean": [0.5, 0.5, 0.5]
        },
        "postprocess": {"activation": "softmax", "top_k": 2},
    }  # fmt: skip
    assert manifest.batching.max_batch == 8
    assert manifest_from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_manifest_is_the_default(text: str) -> None:
    manifest = parse_manifest(text)
    assert manifest.task == "tensor"
    assert manifest.task_config() == {"preprocess": {}, "postprocess": {}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: tensor\ntaks: x", r"line 2: taks is not a known field; there are: task, model"),
        ("batching:\n  max_bach: 2", r"line 2: batching.max_bach is not a known field"),
        (
            "inputs:\n- {name: x, dtype: FP32, shape: [1], size: 1}",
            r"inputs\[0\].size is not a known field; there are: name, d",
        ),
        (
            "inputs:\n- {name: x, dtype: float, shape: [1]}",
            r"inputs\[0\].dtype cannot be used: the dtypes are BOOL",
        ),
        ("inputs:\n- {name: x, dtype: FP32, shape: [-2]}", r"inputs\[0\].shape\[0\] cannot be used"),
        ("outputs:\n" + 2 * "- {name: x, dtype: FP32, shape: [1]}\n", "a name of its own"),
        ("inputs: []", "inputs cannot be used"),
        ("batching:\n  max_batch: 0", r"line 2: batching.max_batch cannot be used"),
        ("task: 7", r"line 1: task cannot be used: .*quotes"),
        ("labels:\n- a\n- no\n", r"line 3: labels\[1\] cannot be used: .*quotes"),
        ("labels: []", "give 1 to 200000 labels"),
        ("labels: ../../etc/passwd", "labels cannot be used: .*leads out"),
        ("model: /etc/passwd", "model cannot be used: .*absolute"),
        ("- a\n- b", "fields by name"),
        ("just text", "fields by name"),
        ("task: [", r"not YAML .*\(line"),
        ("a: b: c", "not YAML"),
        ("task: tensor\ntask: other", r"line 2: 'task' is there twice"),
        ("preprocess: {mean: .nan}", "preprocess.mean must be a finite number"),
        ("preprocess: {mean: .inf}", "finite"),
        ("preprocess: {a: 2024-01-01}", "must be text, a number"),
        ("preprocess: {a: 2024-99-99}", "value that cannot be read"),
        ("preprocess: {1: a}", "key that is not text"),
        ("preprocess: {a: !!set {b}}", "must be text"),
        ("preprocess: {a: " + "9" * 30 + "}", "too large"),
        ("preprocess: {a: " + "9" * 10_000 + "}", "cannot be read"),
        ("x: !!python/object/apply:os.system [true]", "not YAML"),
        ("a\x00b: 1", "not YAML"),
        ("description: " + "x" * 4001, "description cannot be used"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidPackage, match=said):
        parse_manifest(text)


def test_alias_bombs_are_refused() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 20)]
    bomb = "\n".join(lines)
    value = yaml.safe_load(bomb)
    assert value["a19"][0][0] is value["a19"][1][1]  # 2 ** 20 strings once they are written out
    with pytest.raises(InvalidPackage, match="line 1: anchors and aliases"):
        parse_manifest(bomb)


@pytest.mark.parametrize("text", ["[" * 100_000, "preprocess: " + "{a: " * 30 + "1" + "}" * 30, "- " * 50_000])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(InvalidPackage, match="nested too deep"):
        parse_manifest(text)


def test_huge_manifests_are_refused() -> None:
    with pytest.raises(InvalidPackage, match="larger than 1048576 bytes"):
        parse_manifest("#" * (1 << 20) + "\n")
    with pytest.raises(InvalidPackage, match="too long"):
        parse_manifest("labels: [" + "a," * 300_000 + "]")
