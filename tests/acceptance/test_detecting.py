"""The demo detector over HTTP: upload, call, parameters, and what an administrator gets wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.answers import refused
from tests.acceptance.pictures import COFFEE_JPEG, cat, encoded, turned_by_exif
from tests.conftest import Demo
from tests.servers import DETECTOR, demo_package


@pytest.fixture(scope="module")
def detector(demo: Demo) -> Iterator[Demo]:
    """The demo's server, with the detector beside the classifier."""
    demo.server.upload("detector", demo_package(DETECTOR))
    demo.server.deploy("detector")
    yield demo
    left = demo.server.ok("DELETE", "/models/detector/deployment")
    demo.server.wait_generation("detector", left["generation"], "stopped")
    demo.server.ok("DELETE", "/models/detector")


def test_a_photo_is_answered_with_boxes(detector: Demo) -> None:
    answer = detector.server.infer("detector", detector.token, content=COFFEE_JPEG)
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert body["task"] == "object-detection"
    assert body["image"] == {"width": 600, "height": 400}
    assert [one["label"] for one in body["detections"]] == ["cup", "dining table"]
    cup = body["detections"][0]
    assert set(cup) == {"label", "index", "score", "box"}
    assert cup["index"] == 41
    assert cup["box"] == pytest.approx([165, 22, 412, 266], abs=4)


def test_a_photo_that_the_camera_turned_is_answered_upright(detector: Demo) -> None:
    calls = [turned_by_exif(), encoded(cat(), "JPEG", quality=95)]
    turned, plain = (detector.server.infer("detector", detector.token, content=data).json() for data in calls)
    assert turned["image"] == plain["image"] == {"width": 451, "height": 300}
    assert [one["label"] for one in turned["detections"]] == [one["label"] for one in plain["detections"]]
    for one, other in zip(turned["detections"], plain["detections"], strict=True):
        assert one["box"] == pytest.approx(other["box"], abs=5)


def test_parameters_of_a_call(detector: Demo) -> None:
    def call(parameters: str) -> int:
        files = {"image": ("coffee.jpg", COFFEE_JPEG)}
        answer = detector.server.infer("detector", detector.token, files=files, data={"parameters": parameters})
        assert answer.status_code == 200, answer.text
        return len(answer.json()["detections"])

    assert call('{"score_threshold": 0.45}') == 1
    assert call('{"score_threshold": 0, "max_detections": 7}') == 7
    refusal = detector.server.infer(
        "detector",
        detector.token,
        files={"image": ("coffee.jpg", COFFEE_JPEG)},
        data={"parameters": '{"score_threshold": 2}'},
    )
    assert "score_threshold" in refused(refusal, 422)["message"]


def test_several_photos_are_answered_in_order(detector: Demo) -> None:
    files = [("image", (f"{i}.jpg", data)) for i, data in enumerate([COFFEE_JPEG, encoded(cat(), "PNG")])]
    results = detector.server.infer("detector", detector.token, files=files).json()["results"]
    assert [result["image"]["width"] for result in results] == [600, 451]
