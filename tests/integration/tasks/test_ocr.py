"""PP-OCR's own models on a page, against what the library `rapidocr` 3.10.0 answered for the same pictures.

Recorded with `use_cls=False` by `TextDetector` (boxes) and `RapidOCR` (texts), which resize and find contours with
OpenCV: neither is used here, so places may differ by a pixel or two, and the texts may not differ at all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.media.images import decode_scaled
from core.pipelines.operations import OPERATIONS
from core.signature import Signature
from core.tasks import text_detection
from core.tasks.base import Payload, Task
from core.tasks.text_detection import TextDetection
from core.tasks.text_recognition import TextRecognition
from tests.asked import answer_of
from tests.downloads import wheel_file
from tests.planted import must_notice

PAGE = Path(__file__).parents[3] / "demo/images/page.png"
TEXTS = {
    "Invoice 2026-1184",
    "Total: 84.50 EUR",
    "The quick brown fox jumps over",
    "the lazy dog near the river bank.",
    "Please pay within thirty days to",
    "account DE44 5001 0517 5407 3249 31",
    "Thank you!",
}
STRAIGHT = [
    [[58, 52], [380, 52], [380, 86], [58, 86]],
    [[558, 61], [743, 61], [743, 84], [558, 84]],
    [[56, 159], [415, 160], [415, 188], [56, 187]],
    [[57, 220], [424, 220], [424, 248], [57, 248]],
    [[56, 278], [410, 280], [410, 310], [55, 308]],
    [[58, 340], [500, 340], [500, 366], [58, 366]],
    [[58, 473], [252, 473], [252, 510], [58, 510]],
]
TILTED = [
    [[559, 101], [746, 78], [749, 105], [562, 127]],
    [[62, 154], [384, 113], [389, 150], [67, 191]],
    [[75, 259], [433, 217], [436, 248], [78, 290]],
    [[82, 321], [448, 275], [452, 305], [86, 350]],
    [[90, 379], [441, 336], [445, 368], [93, 410]],
    [[98, 439], [541, 385], [544, 413], [101, 468]],
    [[112, 569], [310, 546], [314, 587], [117, 609]],
]
PIXELS = 2.0


class Model:
    """An engine with its task."""

    def __init__(self, file: str, make: Any) -> None:
        path = wheel_file("rapidocr", "3.10.0", f"rapidocr/models/{file}")
        self.engine = OnnxEngine()
        self.signature: Signature = self.engine.load(path, EngineOptions(threads=2))
        self.task: Task = make(self.signature, path)

    def answer(self, payload: Payload) -> dict[str, Any]:
        """Of one picture."""
        return answer_of(self.task, self.engine, payload)


def _reader(signature: Signature, path: Path) -> Task:
    found = onnx.load(str(path), load_external_data=False).metadata_props
    characters = next(one.value for one in found if one.key == "character").splitlines()
    return TextRecognition({"labels": json.loads(json.dumps(characters))}, signature, path.parent)


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[Model, Model]]:
    detect = Model("PP-OCRv6_det_small.onnx", lambda signature, path: TextDetection({}, signature, path.parent))
    read = Model("PP-OCRv6_rec_small.onnx", _reader)
    yield detect, read
    detect.engine.close()
    read.engine.close()


def tilted() -> bytes:
    image = Image.open(PAGE).rotate(7, expand=True, fillcolor=(246, 244, 238), resample=Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def compare_regions(detect: Model, content: bytes, polygons: list[Any]) -> list[dict[str, Any]]:
    """Hold the lines that are found against the library's; answers them."""
    regions: list[dict[str, Any]] = detect.answer(Payload(content))["regions"]
    assert len(regions) == len(polygons)
    for region, polygon in zip(regions, polygons, strict=True):
        assert np.abs(np.array(region["polygon"]) - polygon).max() < PIXELS
    return regions


def compare_texts(read: Model, content: bytes, regions: list[dict[str, Any]]) -> None:
    """Hold the texts of these lines against the library's."""
    image = decode_scaled(content, max_pixels=10**8)
    crop = OPERATIONS["crop"]
    parts = [crop.run({"image": image, "box": region}, {"margin": 0.0})["image"] for region in regions]
    answers = [read.answer(Payload(b"", image=part)) for part in parts]
    assert {answer["text"] for answer in answers} == TEXTS
    assert min(answer["score"] for answer in answers) > 0.95


@pytest.mark.parametrize(("data", "polygons"), [(PAGE.read_bytes, STRAIGHT), (tilted, TILTED)])
def test_lines_are_found_and_read_as_the_library_does(
    models: tuple[Model, Model], data: Any, polygons: list[Any]
) -> None:
    detect, read = models
    compare_texts(read, data(), compare_regions(detect, data(), polygons))


def never_grown(corners: Any, by: float) -> Any:
    return corners


def in_pixels_of_the_map(width: int, height: int, inner_width: int, inner_height: int) -> text_detection.Seen:
    return SEEN(inner_width, inner_height, inner_width, inner_height)


SEEN = text_detection.Seen


@pytest.mark.planted("text-detection")
@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        pytest.param(text_detection.regions, "grown", never_grown, id="lines stay shrunken"),
        pytest.param(text_detection, "Seen", in_pixels_of_the_map, id="places are the map's"),
    ],
)
def test_an_error_planted_into_regions_is_noticed(models, monkeypatch, owner: Any, name: str, wrong: Any) -> None:
    monkeypatch.setattr(owner, name, wrong)
    must_notice(compare_regions, models[0], PAGE.read_bytes(), STRAIGHT)


def joined_without_blanks(task: TextRecognition, steps: Any) -> dict[str, Any]:
    """Repetitions joined after the blanks between them are gone, in place of before."""
    best = steps.argmax(axis=1)
    best = best[best != 0]
    kept = best[np.append(True, best[1:] != best[:-1])] if len(best) else best
    return {"text": "".join(task._characters[index] for index in kept.tolist()), "score": 1.0}


_LINE = TextRecognition._line


def upside_down(*given: Any) -> Any:
    return _LINE(*given)[::-1]


@pytest.mark.planted("text-recognition")
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param("_answer", joined_without_blanks, id="double letters are lost"),
        pytest.param("_line", upside_down, id="lines are upside down"),
    ],
)
def test_an_error_planted_into_texts_is_noticed(models, monkeypatch, name: str, wrong: Any) -> None:
    regions = compare_regions(models[0], PAGE.read_bytes(), STRAIGHT)
    monkeypatch.setattr(TextRecognition, name, wrong)
    must_notice(compare_texts, models[1], PAGE.read_bytes(), regions)
