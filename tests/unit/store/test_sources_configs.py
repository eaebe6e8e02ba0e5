from __future__ import annotations

from typing import Any

import pytest

from core.store.manifest import manifest_from_json
from core.store.sources.configs import manifest_of
from core.tasks.image_classification import ImageClassification

CLASSIFIER = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "id2label": {"0": "cat", "1": "dog", "2": "eel"},
}
NORMAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}


def of(processor: dict[str, Any], config: dict[str, Any] = CLASSIFIER) -> dict[str, Any]:
    """The manifest, which its task must take."""
    manifest = manifest_of(config, processor, {})
    checked = manifest_from_json(manifest)
    assert checked.task == "image-classification"
    ImageClassification.check(checked.task_config())
    return manifest


def test_a_vision_transformer_s_processor() -> None:
    manifest = of(
        {"size": {"height": 224, "width": 192}, "resample": 2, "rescale_factor": 0.00392156862745098, **NORMAL}
    )
    assert manifest == {
        "description": "vit",
        "task": "image-classification",
        "labels": ["cat", "dog", "eel"],
        "preprocess": {
            "resize": {"mode": "stretch", "interpolation": "bilinear", "size": [224, 192]},
            "scale": 0.00392156862745098,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
    }


@pytest.mark.parametrize(
    ("processor", "resize"),
    [
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            {"mode": "center_crop", "size": [224, 224], "crop_fraction": 0.875},
        ),
        (
            {"size": 256, "do_center_crop": True, "crop_size": 224, "resample": 3},
            {"mode": "center_crop", "size": [224, 224], "crop_fraction": 0.875, "interpolation": "bicubic"},
        ),
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.9},
            {"mode": "center_crop", "size": [224, 224], "crop_fraction": 0.9},
        ),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.9}, {"mode": "stretch", "size": [384, 384]}),
        ({"size": 224}, {"mode": "stretch", "size": [224, 224]}),
        (
            {
                "size": {"shortest_edge": 224},
                "do_center_crop": True,
                "crop_size": 224,
                "feature_extractor_type": "LevitFeatureExtractor",
            },
            {"mode": "center_crop", "size": [224, 224], "crop_fraction": 0.875},
        ),
        ({"size": "large", "crop_size": [1, 2, 3], "do_center_crop": True}, {"mode": "stretch"}),
    ],
)
def test_how_images_come_to_size(processor: dict[str, Any], resize: dict[str, Any]) -> None:
    assert of(processor)["preprocess"]["resize"] == resize


def test_a_timm_config() -> None:
    config = {
        "architecture": "resnet18",
        "num_classes": 2,
        "label_names": ["cat", "dog"],
        "pretrained_cfg": {
            "input_size": [3, 288, 288], "interpolation": "bicubic", "crop_pct": 0.95,
            "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2],
        },
    }  # fmt: skip
    manifest = of({}, config)
    assert manifest["labels"] == ["cat", "dog"]
    assert manifest["preprocess"] == {
        "resize": {"mode": "center_crop", "size": [288, 288], "crop_fraction": 0.95, "interpolation": "bicubic"},
        "scale": 1 / 255,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.2, 0.2, 0.2],
    }


def test_steps_that_are_left_out() -> None:
    preprocess = of({"do_rescale": False, "do_normalize": False, "do_flip_channel_order": True, **NORMAL})[
        "preprocess"
    ]
    assert preprocess["scale"] == 1.0
    assert preprocess["color"] == "BGR"
    assert "mean" not in preprocess


def test_several_labels_at_once_are_sigmoids() -> None:
    manifest = of({}, {**CLASSIFIER, "problem_type": "multi_label_classification"})
    assert manifest["postprocess"] == {"activation": "sigmoid"}


@pytest.mark.parametrize(
    "names", [{"0": "LABEL_0", "1": "LABEL_1"}, {"0": "cat", "2": "dog"}, {"0": 1}, {}, ["cat"], None]
)
def test_labels_that_say_nothing_are_left_out(names: Any) -> None:
    assert "labels" not in of({}, {**CLASSIFIER, "id2label": names})


def test_a_text_model_is_described_and_stays_tensors() -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 512}
    tokenizer = {"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 1}}}
    assert manifest_of(config, {}, tokenizer, "feature-extraction") == {
        "description": "bert, a WordPiece tokenizer of 2 tokens, texts of at most 512 tokens"
    }


@pytest.mark.parametrize("junk", [{}, {"architectures": 1}, {"pretrained_cfg": []}, {"model_type": {"a": 1}}])
def test_junk_says_nothing(junk: dict[str, Any]) -> None:
    assert manifest_of(junk, {"size": []}, {"model": "x"}) == {}
