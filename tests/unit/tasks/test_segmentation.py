from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import InvalidInput, InvalidPackage, RunFailed
from core.signature import Signature, TensorSpec
from core.tasks.base import Payload, Task
from core.tasks.instance_segmentation import InstanceSegmentation
from core.tasks.semantic_segmentation import SemanticSegmentation

LABELS = ["ground", "ant", "bee"]
SIDE = 8


def signature(dtype: str = "FP32", **outputs: tuple[int, ...]) -> Signature:
    specs = tuple(TensorSpec(name, dtype, shape) for name, shape in outputs.items())
    return Signature((TensorSpec("images", "FP32", (-1, 3, SIDE, SIDE)),), specs)


def semantic(
    of: Signature, labels: Any = LABELS, mode: str = "stretch", **postprocess: Any
) -> SemanticSegmentation:
    config = {"preprocess": {"resize": {"mode": mode}}, "postprocess": postprocess, "labels": labels}
    return SemanticSegmentation(config, of, Path())


def answer(task: Task, outputs: dict[str, np.ndarray], size: tuple[int, int], **parameters: Any) -> dict[str, Any]:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "PNG")
    prepared = task.preprocess([Payload(out.getvalue())], parameters)
    task.check_outputs(outputs)
    (answered,) = task.postprocess(outputs, prepared.contexts, parameters)
    assert answered["image"] == {"width": size[0], "height": size[1]}
    return answered


def picture(text: str) -> list[list[int]]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int).tolist()


LOGITS = np.zeros((1, 3, 2, 2), np.float32)
LOGITS[0, 1, 0, 0] = LOGITS[0, 2, 1, 1] = 1  # an ant in one corner, a bee in the other


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_scores_become_a_map_and_a_list(layout: str) -> None:
    output = LOGITS if layout == "NCHW" else LOGITS.transpose(0, 2, 3, 1)
    answered = answer(semantic(signature(y=(-1, -1, -1, -1)), layout=layout), {"y": output}, (2, 2))
    assert picture(answered["map"]) == [[1, 0], [0, 2]]
    assert answered["masks"] == [
        {"label": "ground", "index": 0, "pixels": 2, "share": 0.5},
        {"label": "ant", "index": 1, "pixels": 1, "share": 0.25},
        {"label": "bee", "index": 2, "pixels": 1, "share": 0.25},
    ]


def test_run_lengths_take_the_place_of_the_map_and_the_background_can_be_left_out() -> None:
    task = semantic(signature(y=(-1, 3, 2, 2)), background=0)
    answered = answer(task, {"y": LOGITS}, (2, 2), mask_format="rle")
    assert "map" not in answered
    assert [(mask["label"], mask["mask"]) for mask in answered["masks"]] == [
        ("ant", {"size": [2, 2], "counts": [0, 1, 3]}),
        ("bee", {"size": [2, 2], "counts": [3, 1]}),
    ]


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 1, 2, 2), (1, 2, 2, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_classes_chosen_in_the_model(shape: tuple[int, ...], dtype: type) -> None:
    task = semantic(signature("INT64", y=tuple(-1 for _ in shape)))
    output = np.array([[1, 0], [0, 2]], dtype).reshape(shape)
    assert picture(answer(task, {"y": output}, (4, 4))["map"]) == [[1, 1, 0, 0]] * 2 + [[0, 0, 2, 2]] * 2


@pytest.mark.parametrize(("activation", "values"), [("none", [0.6, 0.4]), ("sigmoid", [0.1, -0.1])])
def test_a_single_plane_tells_two_classes_apart(activation: str, values: list[float]) -> None:
    task = semantic(signature(y=(-1, 1, 1, 2)), labels=["ground", "ant"], activation=activation)
    answered = answer(task, {"y": np.array(values, np.float32).reshape(1, 1, 1, 2)}, (2, 1))
    assert picture(answered["map"]) == [[1, 0]]


def test_the_grey_of_a_letterbox_is_no_part_of_the_map() -> None:
    planes = np.zeros((1, 3, SIDE, SIDE), np.float32)
    planes[0, 1] = 1
    planes[0, 2, 2:6] = 2  # where a photo of twice the width lies
    answered = answer(semantic(signature(y=(-1, 3, -1, -1)), mode="letterbox"), {"y": planes}, (16, 8))
    assert [mask["label"] for mask in answered["masks"]] == ["bee"]


@pytest.mark.parametrize(
    ("of", "config", "says"),
    [
        (signature(y=(-1, 4, 8, 8)), {}, "3 labels, but the model has 4 classes"),
        (signature(y=(-1, 8, 8)), {}, "3 labels, but the model has 2 classes"),
        (signature(y=(-1, 8)), {}, "no map of classes"),
        (signature(y=(-1, 3, 8, 8)), {"output": "z"}, "no output 'z' for postprocess.output; it has y"),
        (signature(y=(-1, 3, 8, 8)), {"mode": "center_crop"}, "cannot be center_crop"),
    ],
)
def test_a_segmenter_that_does_not_fit(of: Signature, config: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidPackage, match=says):
        semantic(of, **config)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (np.zeros((1, 4, 2, 2), np.float32), "answered 4 classes, but there are 3 labels"),
        (np.full((1, 2, 2), 3), "answered class 3, but there are 3 labels"),
        (np.full((1, 2, 2), -1), "no classes"),
        (np.zeros((1, 2), np.float32), "no map of classes"),
    ],
)
def test_a_dry_run_that_the_labels_do_not_fit(output: np.ndarray, says: str) -> None:
    with pytest.raises(RunFailed, match=says):
        semantic(signature(y=())).check_outputs({"y": output})


def test_a_format_that_does_not_exist_is_refused_before_the_work() -> None:
    with pytest.raises(InvalidInput, match="mask_format must be one of png, rle"):
        semantic(signature(y=())).preprocess([Payload(b"no image")], {"mask_format": "svg"})


def instances(of: Signature, **postprocess: Any) -> InstanceSegmentation:
    config = {"preprocess": {"resize": {"mode": "stretch"}}, "postprocess": postprocess, "labels": LABELS}
    return InstanceSegmentation(config, of, Path())


BOXES = {
    "boxes": np.array([[[0, 0, 4, 4], [4, 4, 8, 8]]], np.float32),
    "scores": np.array([[0.5, 0.9]], np.float32),
    "classes": np.array([[1, 2]], np.float32),
}
SPECS = {"boxes": (-1, -1, 4), "scores": (-1, -1), "classes": (-1, -1)}


def test_masks_over_the_whole_image() -> None:
    planes = np.zeros((1, 2, 2, 2), np.float32)
    planes[0, 0, 0, 0] = planes[0, 1, 1, 1] = 1
    task = instances(signature(**SPECS, masks=(-1, -1, -1, -1)), masks={"kind": "image", "activation": "none"})
    best, second = answer(task, {**BOXES, "masks": planes}, (2, 2))["masks"]
    assert (best["label"], best["box"], best["pixels"]) == ("bee", [1, 1, 2, 2], 1)
    assert picture(best["mask"]) == [[0, 0], [0, 1]]
    assert picture(second["mask"]) == [[1, 0], [0, 0]]


@pytest.mark.parametrize("by_class", [False, True])
def test_masks_that_fill_their_boxes(by_class: bool) -> None:
    planes = np.zeros((1, 2, 3, 2, 2), np.float32) if by_class else np.zeros((1, 2, 2, 2), np.float32)
    planes[(0, 0, 1) if by_class else (0, 0)] = [[1, 1], [0, 0]]
    planes[(0, 1, 2) if by_class else (0, 1)] = [[1, 0], [1, 0]]
    task = instances(
        signature(**SPECS, m=tuple([-1] * planes.ndim)), masks={"kind": "box", "activation": "none", "output": "m"}
    )
    best, second = answer(task, {**BOXES, "m": planes}, (4, 4))["masks"]
    assert picture(best["mask"]) == [[0] * 4] * 2 + [[0, 0, 1, 0]] * 2
    assert picture(second["mask"]) == [[1, 1, 0, 0]] + [[0] * 4] * 3


@pytest.mark.parametrize(
    ("of", "config", "says"),
    [
        (signature(**SPECS), {}, "no output 'masks' for postprocess.masks.output"),
        (signature(**SPECS, masks=(-1, 4, 8, 8)), {}, "cannot be prototypes with the layout boxes"),
        (
            signature(h=(-1, 40, 9), masks=(-1, -1, 8, 8)),
            {"layout": "yolov8"},
            "cannot hold a fixed number of prototypes",
        ),
        (
            signature(h=(-1, 40, 9), masks=(-1, 32, 8, 8)),
            {"layout": "yolov8"},
            "3 labels, but the model has 4 classes",
        ),
        (signature(h=(-1, 36, 9), masks=(-1, 32, 8, 8)), {"layout": "yolov8"}, "and 32 weights of masks"),
        (signature(h=(-1, 9, 6), masks=(-1, 32, 8, 8)), {"layout": "rows"}, "must hold 38 values"),
    ],
)
def test_an_instance_segmenter_that_does_not_fit(of: Signature, config: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidPackage, match=says):
        instances(of, **config)


@pytest.mark.parametrize("layout", ["yolov5", "rows"])
def test_weights_at_the_end_of_other_heads(layout: str) -> None:
    box = [4, 4, 8, 8, 0.9] if layout == "yolov5" else [0, 0, 8, 8, 0.9, 1]
    row = [*box, *([0.1, 0.9, 0.1] if layout == "yolov5" else []), 1, 0]
    outputs = {"h": np.array([[row]], np.float32), "masks": np.zeros((1, 2, 2, 2), np.float32)}
    outputs["masks"][0, 0] = [[1, -1], [-1, -1]]
    task = instances(signature(h=(-1, -1, len(row)), masks=(-1, 2, 2, 2)), layout=layout)
    (one,) = answer(task, outputs, (2, 2))["masks"]
    assert (one["label"], picture(one["mask"])) == ("ant", [[1, 0], [0, 0]])
