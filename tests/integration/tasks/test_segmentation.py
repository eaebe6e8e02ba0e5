"""Segmentation of both kinds against references written with Pillow, NumPy, PyTorch and ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.media import sampling
from core.tasks import detections
from core.tasks.base import Task
from core.tasks.image_input import ImageInput
from core.tasks.instance_segmentation import InstanceSegmentation
from core.tasks.placement import Placement
from core.tasks.semantic_segmentation import SemanticSegmentation
from tests import segmenters
from tests.asked import answer_of
from tests.planted import changed, must_notice
from tests.segmenters import CLASSES, SIDE, WEIGHTS, enlarged, from_png, from_runs, seen

LABELS = [f"thing {index}" for index in range(CLASSES)]
STRETCH = {"resize": {"mode": "stretch", "interpolation": "bilinear", "oversample": 0}}
LEAST, OVERLAP = 0.7, 0.45

Call = Callable[..., dict[str, Any]]


@contextmanager
def calling(kind: type[Task], path: Path, postprocess: dict[str, Any]) -> Iterator[Call]:
    engine = OnnxEngine()
    signature = engine.load(path, EngineOptions(threads=1))
    task = kind({"preprocess": STRETCH, "postprocess": postprocess, "labels": LABELS}, signature, path.parent)

    yield partial(answer_of, task, engine)
    engine.close()


def compare_classes(path: Path, data: bytes) -> None:
    """Hold a semantic segmenter's answers against the reference."""
    small, image = seen(data)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": small})
    large = enlarged(logits[0], image)
    wanted = large.argmax(axis=0)
    with calling(SemanticSegmentation, path, {}) as call:
        answer, by_runs = call(data), call(data, mask_format="rle")
    classes = from_png(answer["map"])
    assert classes.shape == (image.height, image.width)
    first, second = np.sort(large, axis=0)[-1], np.sort(large, axis=0)[-2]
    assert ((classes == wanted) | (first - second < 1e-4)).all()  # ties may be rounded otherwise
    assert (classes == wanted).mean() > 0.999
    assert sum(mask["pixels"] for mask in answer["masks"]) == classes.size
    assert [mask["pixels"] for mask in answer["masks"]] == sorted(
        np.bincount(classes.ravel())[np.unique(classes)]
    )[::-1]
    for mask in by_runs["masks"]:
        assert mask["label"] == LABELS[mask["index"]]
        assert (from_runs(mask["mask"]) == (classes == mask["index"])).all()


@pytest.mark.parametrize("picture", range(5))
def test_each_pixel_s_class_is_the_reference_s(picture: int, tmp_path: Path) -> None:
    compare_classes(segmenters.semantic_model(tmp_path / "model.onnx"), segmenters.pictures()[picture])


@pytest.mark.planted("semantic-segmentation")
@pytest.mark.parametrize(
    ("owner", "name", "change"),
    [
        pytest.param(sampling, "best_planes", lambda best: np.roll(best, 1, axis=1), id="a pixel to the right"),
        pytest.param(sampling, "axis", lambda axis: axis._replace(after=axis.before), id="not interpolated"),
        pytest.param(ImageInput, "_pixels", lambda pixels: pixels[..., ::-1], id="red and blue swapped"),
    ],
)
def test_an_error_planted_into_classes_is_noticed(tmp_path: Path, monkeypatch, owner, name, change) -> None:
    path, data = segmenters.semantic_model(tmp_path / "model.onnx"), segmenters.pictures()[0]
    changed(monkeypatch, owner, name, change)
    must_notice(compare_classes, path, data)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def reference(path: Path, data: bytes) -> list[tuple[int, float, np.ndarray, np.ndarray]]:
    """Class, score, box and the mask's logits, of what stays, best first."""
    small, image = seen(data)
    head, prototypes = onnxruntime.InferenceSession(path).run(["output0", "output1"], {"images": small})
    kept: list[tuple[int, float, np.ndarray, np.ndarray]] = []
    scale = np.array([image.width, image.height] * 2) / SIDE
    for row in sorted(head[0].T, key=lambda row: -row[4 : 4 + CLASSES].max()):
        x, y, w, h = row[:4]
        index, box = int(row[4 : 4 + CLASSES].argmax()), np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        if row[4 + index] < LEAST or any(i == index and overlap(box * scale, b) > OVERLAP for i, _, b, _ in kept):
            continue
        mask = enlarged(np.tensordot(row[-WEIGHTS:], prototypes[0], 1)[None], image)[0]
        kept.append((index, float(row[4 + index]), box * scale, mask))
    return kept


def compare_masks(path: Path, data: bytes) -> None:
    """Hold an instance segmenter's answers against the reference."""
    _, image = seen(data)
    wanted = reference(path, data)
    how = {"layout": "yolov8", "score_threshold": LEAST, "masks": {"output": "output1"}}
    with calling(InstanceSegmentation, path, how) as call:
        found, by_runs = call(data)["masks"], call(data, mask_format="rle")["masks"]
    assert len(found) == len(wanted) >= 3
    for one, same, (index, score, box, logits) in zip(found, by_runs, wanted, strict=True):
        assert (one["index"], one["label"]) == (index, LABELS[index])
        assert one["score"] == pytest.approx(score, abs=1e-4)
        box = box.clip(0, [image.width, image.height] * 2)
        assert one["box"] == pytest.approx(box.tolist(), abs=0.02)
        mask = from_png(one["mask"])
        assert mask.shape == (image.height, image.width)
        assert (from_runs(same["mask"]) == mask).all()
        assert one["pixels"] == mask.sum()
        rows, columns = np.mgrid[: image.height, : image.width]
        inside = (columns >= box[0]) & (columns < box[2]) & (rows >= box[1]) & (rows < box[3])
        differ = mask != (inside & (logits >= 0))
        assert (np.abs(logits[differ]) < 1e-3).all()  # pixels on the very threshold may be rounded otherwise


@pytest.mark.parametrize("picture", range(4))
def test_each_thing_s_mask_is_the_reference_s(picture: int, tmp_path: Path) -> None:
    compare_masks(segmenters.instance_model(tmp_path / "model.onnx"), segmenters.pictures()[picture])


@pytest.mark.planted("instance-segmentation")
@pytest.mark.parametrize(
    ("owner", "name", "change"),
    [
        pytest.param(sampling, "above", lambda mask: np.roll(mask, 1, axis=1), id="a pixel to the right"),
        pytest.param(sampling.Axis, "part", lambda axis: axis._replace(after=axis.before), id="not interpolated"),
        pytest.param(detections, "suppress", lambda kept: kept[::-1], id="worst first"),
        pytest.param(Placement, "to_original", lambda boxes: boxes[:, [1, 0, 3, 2]], id="x and y swapped"),
    ],
)
def test_an_error_planted_into_masks_is_noticed(tmp_path: Path, monkeypatch, owner, name, change) -> None:
    path, data = segmenters.instance_model(tmp_path / "model.onnx"), segmenters.pictures()[0]
    changed(monkeypatch, owner, name, change)
    must_notice(compare_masks, path, data)
