"""Models that the tests' definitions name."""

from __future__ import annotations

from core.pipelines.ports import ModelFacts
from core.pipelines.validation import Facts
from core.signature import Signature, TensorSpec

NOTHING = Signature((), ())


def tensor_model(inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> ModelFacts:
    """A model of FP32 tensors with these shapes."""
    return ModelFacts(
        "tensor",
        "tensor",
        Signature(
            tuple(TensorSpec(name, "FP32", shape) for name, shape in inputs.items()),
            tuple(TensorSpec(name, "FP32", shape) for name, shape in outputs.items()),
        ),
    )


class Known(dict[tuple[str, int | None], ModelFacts | str]):
    """Says of every other model that there is none."""

    def __missing__(self, key: tuple[str, int | None]) -> str:
        return f"there is no model `{key[0]}`."


FACTS: Facts = Known(
    {
        ("detector", None): ModelFacts("object-detection", "image", NOTHING),
        ("classifier", None): ModelFacts("image-classification", "image", NOTHING),
        ("classifier", 2): ModelFacts("image-classification", "image", NOTHING),
        ("embedder", None): ModelFacts("text-embedding", "text", NOTHING),
        ("odd", None): ModelFacts("a-task-of-tomorrow", "image", NOTHING),
        ("wide", None): tensor_model({"x": (-1, 8)}, {"y": (-1, 4)}),
        ("narrow", None): tensor_model({"x": (-1, 4)}, {"z": (-1, 2)}),
    }
)

CASCADE = """
description: Every object of a photo, named.
inputs:
  photo: image
  at_least: {type: number, default: 0.4}
nodes:
  detect: {model: detector, input: photo}
  sure: {op: threshold, inputs: {items: detect.detections, at_least: at_least}}
  best: {op: top-k, input: sure.items, k: 10}
  objects:
    op: map
    over: best.items
    as: found
    nodes:
      crop: {op: crop, inputs: {image: photo, box: found.box}}
      class: {model: classifier, version: 2, input: crop.image, parameters: {top_k: 3}}
      named: {op: merge, inputs: {detection: found, classes: class.predictions}}
    output: named
outputs:
  objects: objects.items
"""
