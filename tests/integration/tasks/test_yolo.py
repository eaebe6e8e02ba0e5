"""Raw YOLO heads on a letterbox against a reference written with Pillow, NumPy and ONNX Runtime alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.tasks import detections, image_input
from core.tasks.base import Payload
from core.tasks.object_detection import ObjectDetection
from core.tasks.placement import Placement
from tests import segmenters
from tests.centernet import overlap
from tests.planted import must_notice
from tests.segmenters import CLASSES, SIDE

LABELS = [f"thing {index}" for index in range(CLASSES)]
LAYOUTS = ["yolov8", "yolov5"]
LEAST, OVERLAP = {"yolov8": 0.6, "yolov5": 0.4}, 0.3
GREY = (114, 114, 114)

Found = tuple[int, float, list[float]]


def letterboxed(image: Image.Image) -> tuple[np.ndarray[Any, Any], float, int, int]:
    """What the model is given; by what the image was scaled, and where it lies."""
    scale = min(SIDE / image.width, SIDE / image.height)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas, left, top = Image.new("RGB", (SIDE, SIDE), GREY), (SIDE - width) // 2, (SIDE - height) // 2
    canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return np.asarray(canvas, np.float32).transpose(2, 0, 1)[None], scale, left, top


def reference(path: Path, data: bytes, layout: str) -> list[Found]:
    """Class, score and box of what stays, best first, in pixels of the image."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    small, scale, left, top = letterboxed(image)
    (head,) = onnxruntime.InferenceSession(path).run(None, {"images": small})
    rows = head[0] if layout == "yolov5" else head[0].T
    scores = rows[:, 5:] * rows[:, 4:5] if layout == "yolov5" else rows[:, 4:]
    kept: list[Found] = []
    for place in np.argsort(-scores.max(axis=1), kind="stable"):
        index, score = int(scores[place].argmax()), float(scores[place].max())
        x, y, w, h = rows[place, :4].tolist()
        box = [(x - w / 2 - left) / scale, (y - h / 2 - top) / scale]
        box += [(x + w / 2 - left) / scale, (y + h / 2 - top) / scale]
        if score < LEAST[layout] or any(i == index and overlap(box, other) > OVERLAP for i, _, other in kept):
            continue
        kept.append((index, score, box))
    edges = [image.width, image.height] * 2
    cut = [(index, score, np.clip(box, 0, edges).tolist()) for index, score, box in kept]
    return [one for one in cut if one[2][2] > one[2][0] and one[2][3] > one[2][1]]


def compare_boxes(path: Path, layout: str) -> list[Found]:
    """Hold what is found in four pictures, wide and tall ones, against the reference; answers what that found."""
    engine = OnnxEngine()
    signature = engine.load(path, EngineOptions(threads=1))
    preprocess = {"resize": {"mode": "letterbox", "interpolation": "bilinear", "oversample": 0}}
    postprocess = {"layout": layout, "score_threshold": LEAST[layout], "iou_threshold": OVERLAP}
    config = {"preprocess": preprocess, "postprocess": postprocess, "labels": LABELS}
    task = ObjectDetection(config, signature, path.parent)
    compared: list[Found] = []
    for data in segmenters.pictures()[:4]:
        prepared = task.preprocess([Payload(data)], {})
        (answer,) = task.postprocess(engine.run(prepared.inputs), prepared.contexts, {})
        found, wanted = answer["detections"], reference(path, data, layout)
        assert [(one["index"], one["label"]) for one in found] == [
            (index, LABELS[index]) for index, _, _ in wanted
        ]
        for one, (_, score, box) in zip(found, wanted, strict=True):
            assert one["score"] == pytest.approx(score, abs=1e-4)
            # Sides are rounded to whole pixels of the model's: half of one is 7 in the largest picture.
            assert np.abs(np.subtract(one["box"], box)).max() < 0.5 / SIDE * max(answer["image"].values())
        compared += wanted
    engine.close()
    return compared


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_are_the_reference_s(tmp_path: Path, layout: str) -> None:
    found = compare_boxes(segmenters.detector(tmp_path / "model.onnx", layout), layout)
    assert len(found) > 20
    assert len({index for index, _, _ in found}) > 2


def without_padding(width: int, height: int, seen: Any, inner: Any, top: int, left: int) -> Placement:
    return Placement(width, height, seen, inner, 0, 0)


_SUPPRESS = detections.suppress


def over_all_classes(boxes: Any, scores: Any, classes: Any, threshold: float, limit: int) -> Any:
    return _SUPPRESS(boxes, scores, np.zeros_like(classes), threshold, limit)


def not_at_all(boxes: Any, scores: Any, classes: Any, threshold: float, limit: int) -> Any:
    return _SUPPRESS(boxes, scores, classes, 1.0, limit)


@pytest.mark.planted("object-detection")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        pytest.param(image_input, "Placement", without_padding, id="the padding is not taken off"),
        pytest.param(detections, "suppress", over_all_classes, id="suppressed over all classes"),
        pytest.param(detections, "suppress", not_at_all, id="not suppressed"),
    ],
)
def test_a_planted_error_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, owner: Any, name: str, wrong: Any
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    must_notice(compare_boxes, segmenters.detector(tmp_path / "model.onnx", layout), layout)
