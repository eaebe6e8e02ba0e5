"""The demo detector against a reference written independently, with Pillow, NumPy and ONNX Runtime alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.tasks.base import Payload
from core.tasks.detection_outputs import Boxes
from core.tasks.image_input import ImageInput
from core.tasks.object_detection import ObjectDetection
from core.tasks.placement import Placement
from tests.centernet import DEMO, LABELS, LEAST, OVERLAP, ROOT, TURNED, pictures, reference, suppressed
from tests.planted import changed, must_notice


@pytest.fixture(scope="module")
def detect() -> Iterator[Any]:
    engine = OnnxEngine()
    signature = engine.load(ROOT / "model.onnx", EngineOptions(threads=2))
    manifest = yaml.safe_load((ROOT / "model.yaml").read_text())
    task = ObjectDetection(
        {key: manifest[key] for key in ("preprocess", "postprocess", "labels")}, signature, ROOT
    )

    def call(*images: bytes, **parameters: Any) -> list[dict[str, Any]]:
        prepared = task.preprocess([Payload(data) for data in images], parameters)
        return task.postprocess(engine.run(prepared.inputs), prepared.contexts, parameters)

    yield call
    engine.close()


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(ROOT / "model.onnx", providers=["CPUExecutionProvider"])


def compare_boxes(detect: Any, session: onnxruntime.InferenceSession, count: int) -> int:
    """Hold the answers for so many photos and crops against the reference; how many things were compared."""
    compared = 0
    for what, data in pictures(count):
        (answer,) = detect(data, score_threshold=LEAST)
        wanted = suppressed(reference(session, data, LEAST), OVERLAP)
        found = answer["detections"]
        assert [one["label"] for one in found] == [label for label, _, _ in wanted], what
        for one, (label, score, box) in zip(found, wanted, strict=True):
            assert np.abs(np.subtract(one["box"], box)).max() < 1, f"{what}, {label}"
            assert one["score"] == pytest.approx(score, abs=0.01)
        compared += len(found)
    return compared


def test_50_photos_and_crops_within_a_pixel_of_the_reference(detect, session) -> None:
    assert compare_boxes(detect, session, 50) > 100


@pytest.mark.planted("object-detection")
@pytest.mark.parametrize(
    ("owner", "name", "change"),
    [
        pytest.param(Placement, "to_original", lambda boxes: boxes + np.float32(1.5), id="boxes a little off"),
        pytest.param(Placement, "to_original", lambda boxes: boxes[:, [1, 0, 3, 2]], id="x and y swapped"),
        pytest.param(ImageInput, "_pixels", lambda pixels: pixels[..., ::-1], id="red and blue swapped"),
        pytest.param(Boxes, "_scores", lambda found: (found[0], found[1] + 1), id="classes one on"),
    ],
)
def test_a_planted_error_is_noticed(detect, session, monkeypatch, owner: Any, name: str, change: Any) -> None:
    changed(monkeypatch, owner, name, change)
    must_notice(compare_boxes, detect, session, 4)


def test_by_itself_it_answers_from_the_manifest_s_threshold_on(detect, session) -> None:
    data = (DEMO / "images" / "coffee.jpg").read_bytes()
    (answer,) = detect(data)
    assert [one["label"] for one in answer["detections"]] == ["cup", "dining table"]
    assert [one["index"] for one in answer["detections"]] == [LABELS.index("cup"), LABELS.index("dining table")]
    assert answer["image"] == {"width": 600, "height": 400}
    wanted = suppressed(reference(session, data, 0.35), OVERLAP)
    assert [one["score"] for one in answer["detections"]] == pytest.approx(
        [score for _, score, _ in wanted], abs=0.01
    )


def test_a_turned_photo_is_answered_as_it_is_seen(detect) -> None:
    upright = Image.open(DEMO / "images" / "coffee.jpg").convert("RGB")
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(TURNED[6]).save(out, "PNG", exif=exif)
    (turned,), plain = detect(out.getvalue()), io.BytesIO()
    upright.save(plain, "PNG")
    assert turned == detect(plain.getvalue())[0]


def test_a_batch_answers_as_its_images_do_alone(detect) -> None:
    images = [data for _, data in pictures(4)]
    for alone, together in zip(images, detect(*images), strict=True):
        (answer,) = detect(alone)
        assert [one["label"] for one in answer["detections"]] == [one["label"] for one in together["detections"]]
        for one, other in zip(answer["detections"], together["detections"], strict=True):
            assert one["box"] == pytest.approx(other["box"], abs=0.1)
