from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import InvalidInput, InvalidPackage, RunFailed
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload
from core.tasks.object_detection import ObjectDetection

LABELS = ["ant", "bee", "cat"]
SIDE = 64

Outputs = dict[str, np.ndarray]


def signature(**outputs: tuple[int, ...]) -> Signature:
    specs = tuple(TensorSpec(name, "FP32", shape) for name, shape in outputs.items())
    return Signature((TensorSpec("images", "FP32", (-1, 3, SIDE, SIDE)),), specs)


BOXES = signature(boxes=(-1, -1, 4), scores=(-1, -1), classes=(-1, -1))
BY_CLASS = signature(boxes=(-1, -1, 4), scores=(-1, -1, 3))
V8 = signature(output0=(-1, 7, -1))
V5 = signature(output0=(-1, -1, 8))
ROWS = signature(output0=(-1, 300, 6))


def make(of: Signature = BOXES, resize: dict[str, Any] | None = None, **postprocess: Any) -> ObjectDetection:
    labels = postprocess.pop("labels", LABELS)
    config = {"preprocess": {"resize": resize or {"mode": "stretch"}}, "postprocess": postprocess}
    return ObjectDetection({**config, "labels": labels} if labels else config, of, Path())


def photo(width: int = SIDE, height: int = SIDE) -> Payload:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 100, 50)).save(out, "PNG")
    return Payload(out.getvalue())


def answer(
    task: ObjectDetection, outputs: Outputs, size: tuple[int, int] = (SIDE, SIDE), **parameters: Any
) -> list[dict[str, Any]]:
    """The detections in an image of `size`, as they go over the wire."""
    prepared = task.preprocess([photo(*size)], parameters)
    (answered,) = task.postprocess(outputs, prepared.contexts, parameters)
    assert answered["image"] == {"width": size[0], "height": size[1]}
    found: list[dict[str, Any]] = json.loads(json.dumps(answered["detections"], allow_nan=False))
    return found


def boxes(*rows: tuple[list[float], float, float]) -> Outputs:
    return {
        "boxes": np.array([[row[0] for row in rows]], np.float32).reshape(1, -1, 4),
        "scores": np.array([[row[1] for row in rows]], np.float32),
        "classes": np.array([[row[2] for row in rows]], np.float32),
    }


def named(found: list[dict[str, Any]]) -> list[str]:
    return [one["label"] for one in found]


def test_boxes_scores_and_classes() -> None:
    outputs = boxes(([1, 2, 3, 4], 0.5, 1), ([10, 20, 30, 40], 0.75, 2), ([5, 5, 6, 6], 0.2, 0))
    assert answer(make(), outputs) == [
        {"label": "cat", "index": 2, "score": 0.75, "box": [10, 20, 30, 40]},
        {"label": "bee", "index": 1, "score": 0.5, "box": [1, 2, 3, 4]},
    ]


def test_outputs_under_other_names_in_another_order() -> None:
    of = signature(num=(-1,), cls=(-1, -1), conf=(-1, -1), dets=(-1, -1, 4))
    found = boxes(([1, 2, 3, 4], 0.5, 1), ([5, 6, 7, 8], 0.5, 2))
    outputs = {"dets": found["boxes"], "conf": found["scores"], "cls": found["classes"], "num": np.array([1])}
    names = {"boxes": "dets", "scores": "conf", "classes": "cls"}
    assert named(answer(make(of, outputs=names), outputs)) == ["bee", "cat"]
    assert named(answer(make(of, outputs={**names, "count": "num"}), outputs)) == ["bee"]


@pytest.mark.parametrize(
    ("format", "box"),
    [
        ("xyxy", [10, 20, 30, 60]),
        ("yxyx", [20, 10, 60, 30]),
        ("xywh", [10, 20, 20, 40]),
        ("cxcywh", [20, 40, 20, 40]),
    ],
)
def test_formats_and_units_of_boxes(format: str, box: list[float]) -> None:
    (one,) = answer(make(box_format=format), boxes((box, 0.5, 0)))
    assert one["box"] == [10, 20, 30, 60]
    (one,) = answer(make(box_format=format, box_unit="fraction"), boxes(([v / SIDE for v in box], 0.5, 0)))
    assert one["box"] == [10, 20, 30, 60]


@pytest.mark.parametrize(
    ("resize", "size", "box"),
    [
        (
            {"mode": "stretch"},
            (640, 320),
            [100, 100, 300, 300],
        ),  # 10 and 5 pixels of the photo to one of the model's
        ({"mode": "letterbox"}, (640, 320), [100, 40, 300, 320]),  # 10 to one, 16 rows of grey above
        ({"mode": "letterbox", "align": "top_left"}, (640, 320), [100, 200, 300, 320]),
        ({"mode": "center_crop", "crop_fraction": 1}, (640, 320), [210, 100, 310, 300]),  # 5 to one, 160 cut off
    ],
)
def test_boxes_come_back_to_the_photo(resize: dict[str, Any], size: tuple[int, int], box: list[float]) -> None:
    (one,) = answer(make(resize=resize), boxes(([10, 20, 30, 60], 0.5, 0)), size)
    assert one["box"] == box


def test_boxes_are_cut_at_the_photo_s_edges_and_left_out_beyond() -> None:
    outputs = boxes(([-5, -5, 10, 100], 0.9, 0), ([70, 0, 90, 9], 0.8, 0), ([5, 9, 5, 20], 0.7, 0))
    assert [one["box"] for one in answer(make(), outputs)] == [[0, 0, 10, 64]]


def test_boxes_that_are_no_numbers_are_left_out() -> None:
    nan = float("nan")
    outputs = boxes(([1, 2, nan, 4], 0.9, 0), ([1, 2, 3, 4], nan, 0), ([1, 2, 3, 4], 0.5, 0))
    assert [one["score"] for one in answer(make(), outputs)] == [0.5]


def test_a_head_that_is_no_number_answers_nothing() -> None:
    inf, nan = float("inf"), float("nan")
    outputs = v8_head(
        ([inf, 9, inf, 9], [0.9, 0, 0]), ([9, 9, 9, 9], [nan, 0, 0]), ([9, 9, 9, 9], [-inf, -inf, -inf])
    )
    assert not answer(make(V8, layout="yolov8"), outputs)
    by_class = {"boxes": np.ones((1, 1, 4), np.float32), "scores": np.full((1, 1, 3), inf, np.float32)}
    assert not answer(make(BY_CLASS, activation="softmax"), by_class)


def test_first_class_and_padding() -> None:
    outputs = boxes(([1, 2, 3, 4], 0.9, 1), ([1, 2, 3, 4], 0.8, 3), ([0, 0, 0, 0], 0.7, 0))
    assert named(answer(make(first_class=1), outputs)) == ["ant", "cat"]


def test_scores_of_each_class_with_a_background() -> None:
    logits = np.log(np.array([[[0.1, 0.7, 0.2], [0.6, 0.1, 0.3]]], np.float32))
    outputs = {"boxes": np.array([[[1, 2, 3, 4], [5, 6, 7, 8]]], np.float32), "scores": logits}
    last = make(BY_CLASS, activation="softmax", background="last", labels=LABELS[:2])
    assert [(d["label"], d["score"]) for d in answer(last, outputs)] == [
        ("bee", pytest.approx(0.7)),
        ("ant", pytest.approx(0.6)),
    ]
    first = make(BY_CLASS, activation="softmax", background="first", labels=LABELS[:2])
    assert [(d["label"], d["score"]) for d in answer(first, outputs)] == [
        ("ant", pytest.approx(0.7)),
        ("bee", pytest.approx(0.3)),
    ]
    assert answer(make(BY_CLASS, activation="sigmoid"), {**outputs, "scores": logits * 0})[0]["score"] == 0.5


def v8_head(*rows: tuple[list[float], list[float]]) -> Outputs:
    return {"output0": np.array([[[*box, *scores] for box, scores in rows]], np.float32).transpose(0, 2, 1)}


def v5_head(*rows: tuple[list[float], float, list[float]]) -> Outputs:
    return {"output0": np.array([[[*box, objectness, *scores] for box, objectness, scores in rows]], np.float32)}


def test_a_yolov8_head_is_suppressed_class_by_class() -> None:
    outputs = v8_head(
        ([20, 20, 20, 20], [0.1, 0.6, 0.2]),
        ([21, 20, 20, 20], [0.1, 0.9, 0.2]),  # the same thing, better
        ([20, 20, 20, 20], [0.5, 0.1, 0.2]),  # of another class
        ([50, 50, 10, 10], [0.1, 0.2, 0.24]),  # below the threshold
    )
    found = answer(make(V8, layout="yolov8"), outputs)
    assert [(d["label"], d["box"]) for d in found] == [("bee", [11, 10, 31, 30]), ("ant", [10, 10, 30, 30])]
    assert len(answer(make(V8, layout="yolov8", iou_threshold=1), outputs)) == 3
    assert len(answer(make(V8, layout="yolov8"), outputs, iou_threshold=1)) == 3
    assert len(answer(make(V8, layout="yolov8", score_threshold=0.2), outputs)) == 3


def test_a_yolov5_head_multiplies_objectness_and_class() -> None:
    outputs = v5_head(([20, 20, 20, 20], 0.5, [0.2, 0.8, 0.1]), ([50, 50, 10, 10], 0.3, [0.2, 0.8, 0.1]))
    (one,) = answer(make(V5, layout="yolov5"), outputs)
    assert one == {"label": "bee", "index": 1, "score": pytest.approx(0.4), "box": [10, 10, 30, 30]}
    logits = v5_head(([20, 20, 20, 20], 0.0, [-9, 0.0, -9]))
    (one,) = answer(make(V5, layout="yolov5", activation="sigmoid"), logits)
    assert one["score"] == 0.25


def test_rows_are_answered_as_they_are() -> None:
    head = np.zeros((1, 300, 6), np.float32)
    head[0, :2] = [[1, 2, 3, 4, 0.5, 0], [1, 2, 3, 4, 0.75, 0]]
    assert [d["score"] for d in answer(make(ROWS, layout="rows"), {"output0": head})] == [0.75, 0.5]


def test_the_threshold_and_the_number_can_be_asked_for() -> None:
    outputs = boxes(*[([i, i, i + 1, i + 1], i / 20, 0) for i in range(20)])
    task = make(max_detections=10)
    assert len(answer(task, outputs)) == 10
    assert len(answer(task, outputs, score_threshold=0.9)) == 2
    assert len(answer(task, outputs, score_threshold="0.9", max_detections="1")) == 1
    assert len(answer(task, outputs, score_threshold=0, max_detections=1000)) == 20
    assert [d["score"] for d in answer(task, outputs, max_detections=2)] == pytest.approx([0.95, 0.9])


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"score_threshold": 1.5}, "score_threshold must be a number from 0 to 1"),
        ({"score_threshold": "much"}, "score_threshold"),
        ({"score_threshold": float("nan")}, "score_threshold"),
        ({"score_threshold": True}, "score_threshold"),
        ({"iou_threshold": [1]}, "iou_threshold"),
        ({"max_detections": 0}, "max_detections must be a whole number, 1 to 1000"),
        ({"max_detections": 1001}, "max_detections"),
        ({"max_detections": 1.5}, "max_detections"),
    ],
)
def test_wrong_parameters_are_refused_before_the_work(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        make().preprocess([Payload(b"no image")], parameters)


@pytest.mark.parametrize(
    ("of", "config", "says"),
    [
        (V8, {}, r"no output 'boxes' for the manifest's field postprocess.outputs.boxes; it has output0"),
        (
            BOXES,
            {"outputs": {"scores": "conf"}},
            "no output 'conf' for the manifest's field postprocess.outputs.scores",
        ),
        (signature(boxes=(-1, 100, 5), scores=(-1, 100)), {}, r"boxes \[-1, 100, 5\] cannot hold boxes"),
        (signature(boxes=(-1, 400), scores=(-1, 100)), {}, "needs 3 axes"),
        (signature(boxes=(-1, -1, 4), scores=(-1, -1)), {}, "name the output of classes"),
        (BY_CLASS, {"labels": LABELS[:2]}, "2 labels, but the model has 3 classes"),
        (BY_CLASS, {"background": "last"}, "3 labels, but the model has 2 classes"),
        (BOXES, {"activation": "softmax"}, "softmax and background need class scores"),
        (V8, {"layout": "yolov8", "labels": [*LABELS, "dog"]}, "4 labels, but the model has 3 classes"),
        (V5, {"layout": "yolov5", "labels": LABELS[:1]}, "1 labels, but the model has 3 classes"),
        (signature(output0=(-1, 4, 100)), {"layout": "yolov8"}, "cannot be of the layout yolov8"),
        (V8, {"layout": "rows"}, "needs 3 axes|its last axis"),
        (V8, {"layout": "yolov8", "activation": "softmax"}, "are not for yolov8"),
    ],
)
def test_a_model_that_does_not_fit(of: Signature, config: dict[str, Any], says: str) -> None:
    if config.get("layout") == "rows":
        of = signature(output0=(-1, 300, 7))
    with pytest.raises(InvalidPackage, match=says):
        make(of, **config)


@pytest.mark.parametrize(
    ("task", "outputs", "says"),
    [
        (make(), boxes(([1, 2, 3, 4], 5.0, 0)), "scores reach 5, more than 1.*activation is missing"),
        (make(), boxes(([1, 2, 3, 4], 0.01, 3)), "class 3, but there are 3 labels"),
        (make(), boxes(([1, 2, 3, 4], 0.01, 0.5)), "output classes holds numbers that are no classes"),
        (make(), boxes(([40, 50, 3, 4], 0.01, 0)), "end before they begin.*box_format"),
        (make(), boxes(([0.1, 0.2, 0.3, 0.4], 0.01, 0)), "set postprocess.box_unit to fraction"),
        (make(box_unit="fraction"), boxes(([10, 20, 30, 40], 0.01, 0)), "set postprocess.box_unit to pixel"),
        (
            make(V8, layout="yolov8"),
            v8_head(([9, 9, 9, 9], [0, 0, 0, 0])),
            "3 labels, but the model has 4 classes",
        ),
        (make(V8, layout="yolov8"), v8_head(([9, 9, 9, 9], [0, 0])), "3 labels, but the model has 2 classes"),
        (make(), {**boxes(([1, 2, 3, 4], 0, 0)), "scores": np.zeros((1, 2), np.float32)}, "scores has the shape"),
        (make(), {**boxes(([1, 2, 3, 4], 0, 0)), "boxes": np.zeros((1, 4), np.float32)}, r"not \[items, n, 4\]"),
    ],
)
def test_a_dry_run_that_the_manifest_does_not_fit(task: ObjectDetection, outputs: Outputs, says: str) -> None:
    with pytest.raises((InvalidPackage, RunFailed), match=says):
        task.check_outputs(outputs)


def test_a_dry_run_that_fits() -> None:
    make().check_outputs(boxes(([1, 2, 3, 4], 0.3, 2), ([0, 0, 0, 0], 0, 0)))
    make().check_outputs(boxes())
    make(V8, layout="yolov8").check_outputs(v8_head(([20, 20, 20, 20], [0.1, 0.6, 0.2])))


def test_a_class_without_a_label_is_the_model_s_fault() -> None:
    with pytest.raises(RunFailed, match="class 3, but there are 3 labels"):
        answer(make(), boxes(([1, 2, 3, 4], 0.9, 3)))
    assert named(answer(make(labels=None), boxes(([1, 2, 3, 4], 0.9, 90)))) == ["90"]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"postprocess": {"layout": "ssd"}}, r"postprocess\.layout"),
        ({"postprocess": {"outputs": {"box": "x"}}}, r"postprocess\.outputs\.box does not exist"),
        ({"postprocess": {"score_threshold": 2}}, r"postprocess\.score_threshold"),
        ({"postprocess": {"max_detections": 5000}}, r"postprocess\.max_detections"),
        ({"preprocess": {"resize": {"align": "left"}}}, r"resize\.align"),
        ({"preprocess": {"resize": {"fill": 256}}}, r"resize\.fill"),
    ],
)
def test_the_manifest_s_section_is_checked_alone(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPackage, match=field):
        ObjectDetection.check(config)
