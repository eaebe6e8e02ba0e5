from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.signature import Signature, TensorSpec
from core.store.manifest import manifest_from_json
from core.store.sources.configs import manifest_of
from core.tasks.base import Payload
from core.tasks.image_classification import ImageClassification
from core.tasks.object_detection import ObjectDetection
from core.tasks.semantic_segmentation import SemanticSegmentation

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


BERT = {"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 512}
TOKENIZER = {"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 1}}}
TOLD = "bert, a WordPiece tokenizer of 2 tokens, texts of at most 512 tokens"


@pytest.mark.parametrize("said", ["fill-mask", "text-generation", "tensor", None])
def test_a_text_model_that_no_task_fits_is_described_and_stays_tensors(said: str | None) -> None:
    assert manifest_of(BERT, {}, TOKENIZER, said) == {"description": TOLD}


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
    ],
)
@pytest.mark.parametrize("said", ["sentence-similarity", "feature-extraction", "text-embedding", None])
def test_a_model_of_sentences_embeds_texts(said: str | None, pooling: dict[str, Any], expected: str) -> None:
    found = manifest_of(BERT, {}, TOKENIZER, said, pooling=pooling, sentence={"max_seq_length": 256})
    assert found == {
        "description": TOLD,
        "task": "text-embedding",
        "preprocess": {"max_tokens": 256},
        "postprocess": {"pooling": expected},
    }


def test_a_longest_text_is_never_longer_than_the_model() -> None:
    def longest(config: dict[str, Any], tokenizer: dict[str, Any], **sentence: int) -> Any:
        found = manifest_of(config, {}, tokenizer, "text-embedding", sentence=sentence)
        return found.get("preprocess", {}).get("max_tokens")

    own = {**TOKENIZER, "truncation": {"max_length": 128}}
    assert longest(BERT, own) == 128
    assert longest(BERT, own, max_seq_length=4096) == 512
    assert longest(BERT, TOKENIZER) == 512
    assert longest({**BERT, "model_type": "xlm-roberta", "max_position_embeddings": 514}, TOKENIZER) == 512
    assert longest({}, {**TOKENIZER, "truncation": {"max_length": 10**30}}) is None


@pytest.mark.parametrize(
    ("head", "task"),
    [("ForSequenceClassification", "text-classification"), ("ForTokenClassification", "token-classification")],
)
def test_a_model_with_a_head_classifies_texts_or_tokens(head: str, task: str) -> None:
    config = {**BERT, "architectures": [f"Bert{head}"], "id2label": {"0": "O", "1": "B-PER"}}
    found = manifest_of(config, {}, TOKENIZER)
    assert (found["task"], found["labels"]) == (task, ["O", "B-PER"])
    several = manifest_of({**config, "problem_type": "multi_label_classification"}, {}, TOKENIZER)
    assert several.get("postprocess") == ({"activation": "sigmoid"} if task == "text-classification" else None)
    assert "task" not in manifest_of(config, {}, {}), "without a tokenizer it takes tensors"


LABELS = {"0": "road", "1": "car"}
WHOLE = {"size": {"height": 640, "width": 640}, "resample": 2, "do_normalize": False}


@pytest.mark.parametrize(
    ("kind", "scores", "last", "how"),
    [
        ("rt_detr", 2, 1, {"activation": "sigmoid"}),
        ("detr", 3, 2, {"activation": "softmax", "background": "last"}),
    ],
)
def test_a_detector_s_outputs_are_known_by_its_kind(
    kind: str, scores: int, last: int, how: dict[str, str]
) -> None:
    config = {"model_type": kind, "architectures": ["XForObjectDetection"], "id2label": LABELS}
    manifest = manifest_of(config, WHOLE, {}, "object-detection")
    assert manifest["postprocess"] == {
        "outputs": {"boxes": "pred_boxes", "scores": "logits"},
        "box_format": "cxcywh",
        "box_unit": "fraction",
        **how,
    }
    signature = Signature(
        (TensorSpec("pixel_values", "FP32", (-1, 3, 640, 640)),),
        (TensorSpec("logits", "FP32", (-1, 300, scores)), TensorSpec("pred_boxes", "FP32", (-1, 300, 4))),
    )
    task = ObjectDetection(manifest_from_json(manifest).task_config(), signature, Path())
    picture = io.BytesIO()
    Image.new("RGB", (64, 32)).save(picture, "PNG")
    prepared = task.preprocess([Payload(picture.getvalue())], {})
    logits = np.full((1, 300, scores), -9.0, np.float32)
    logits[0, :, last], logits[0, 7, :2] = 9.0 if scores == 3 else -9.0, [-9, 12]
    boxes = np.full((1, 300, 4), 0.5, np.float32)
    (answer,) = task.postprocess({"logits": logits, "pred_boxes": boxes}, prepared.contexts, {})
    assert [(one["label"], one["box"]) for one in answer["detections"]] == [("car", [16, 8, 48, 24])]


def test_a_detector_of_another_kind_is_described_alone() -> None:
    config = {"model_type": "mystery", "architectures": ["XForObjectDetection"], "id2label": LABELS}
    assert manifest_of(config, WHOLE, {}) == {"description": "mystery"}


@pytest.mark.parametrize("said", [None, "image-segmentation", "semantic-segmentation"])
def test_a_segmenter_sees_the_whole_image(said: str | None) -> None:
    config = {"model_type": "mobilevit", "architectures": ["XForSemanticSegmentation"], "id2label": LABELS}
    processor = {"size": {"shortest_edge": 544}, "do_center_crop": True, "crop_size": 512, "do_normalize": False}
    manifest = manifest_of(config, processor, {}, said)
    assert manifest["task"] == "semantic-segmentation"
    assert manifest["preprocess"]["resize"] == {"mode": "stretch", "size": [512, 512]}
    SemanticSegmentation.check(manifest_from_json(manifest).task_config())


def test_a_task_that_the_source_says_otherwise_is_not_taken() -> None:
    assert "task" not in manifest_of(CLASSIFIER, {}, {}, "image-feature-extraction")
    assert "task" not in manifest_of(CLASSIFIER, {}, {}, "object-detection")


@pytest.mark.parametrize("junk", [{}, {"architectures": 1}, {"pretrained_cfg": []}, {"model_type": {"a": 1}}])
def test_junk_says_nothing(junk: dict[str, Any]) -> None:
    assert manifest_of(junk, {"size": []}, {"model": "x"}) == {}
