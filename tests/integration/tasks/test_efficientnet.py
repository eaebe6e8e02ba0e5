"""The demo classifier against a preprocessing written independently, with Pillow and NumPy alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.media import resize
from core.signature import Signature
from core.tasks import image_input
from core.tasks.base import Payload
from core.tasks.image_classification import ImageClassification
from core.tasks.image_input import ImageInput
from tests.planted import changed, must_notice

DEMO = Path(__file__).parents[3] / "demo"
ROOT = DEMO / "models" / "efficientnet-lite0"
PHOTOS = {"chelsea": {281, 282, 285}, "coffee": {967}, "rocket": {657}, "astronaut": None}
SIZES = ["as it is", "200 px", "1080p", "12 MP"]


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[OnnxEngine, Signature]]:
    engine = OnnxEngine()
    yield engine, engine.load(ROOT / "model.onnx", EngineOptions(threads=2))
    engine.close()


def make_task(signature: Signature, **resize: Any) -> ImageClassification:
    manifest = yaml.safe_load((ROOT / "model.yaml").read_text())
    config = {key: manifest[key] for key in ("preprocess", "postprocess", "labels")}
    config["preprocess"]["resize"].update(resize)
    return ImageClassification(config, signature, ROOT)


def reference(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    side = int(min(width, height) * 224 / 256)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    return ((np.asarray(image).astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None]


@cache
def photo(name: str, size: str, quality: int = 90) -> bytes:
    if size == "as it is":
        return (DEMO / "images" / f"{name}.jpg").read_bytes()
    return jpeg(scaled(name, size), quality)


@cache
def scaled(name: str, size: str) -> Image.Image:
    image = Image.open(DEMO / "images" / f"{name}.jpg")
    factor = {
        "200 px": 200 / min(image.size),
        "1080p": 1080 / min(image.size),
        "12 MP": (12e6 / (image.width * image.height)) ** 0.5,
    }[size]
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, quality: int, subsampling: int = 2) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=subsampling)
    return out.getvalue()


def scores(engine: OnnxEngine, value: np.ndarray) -> np.ndarray:
    powers = np.exp(engine.run({"image": value})["logits"][0].astype(np.float64))
    return powers / powers.sum()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PHOTOS)
def test_the_top_1_of_the_reference(loaded, name: str, size: str) -> None:
    engine, signature = loaded
    task, data = make_task(signature), photo(name, size)
    expected = int(scores(engine, reference(data)).argmax())
    prepared = task.preprocess([Payload(data)], {})
    (answer,) = task.postprocess(engine.run(prepared.inputs), prepared.contexts, {})
    first = answer["predictions"][0]
    assert first["index"] == expected
    assert len(answer["predictions"]) == 5
    if PHOTOS[name]:
        assert expected in PHOTOS[name]


def compare_values(engine: OnnxEngine, task: ImageClassification, name: str, size: str, quality: int) -> None:
    """Hold what the model is given of a photo against the reference's."""
    data = photo(name, size, quality)
    value, expected = task.preprocess([Payload(data)], {}).inputs["image"], reference(data)
    # TurboJPEG and Pillow round a few chroma samples differently: one or two of 256 levels.
    assert np.abs(value - expected).max() <= 2.01 / 128
    assert np.abs(value - expected).mean() < 0.05 / 128
    assert scores(engine, value).argmax() == scores(engine, expected).argmax()


@pytest.mark.parametrize("name", PHOTOS)
def test_decoded_in_full_it_is_the_reference(loaded, name: str) -> None:
    engine, signature = loaded
    exact = make_task(signature, oversample=0)
    for size in SIZES:
        for quality in (80, 95):
            compare_values(engine, exact, name, size, quality)


def crop_one_pixel_off(box: resize.Box) -> resize.Box:
    return box[0] + 1, box[1], box[2] + 1, box[3]


@pytest.mark.planted("image-classification")
@pytest.mark.parametrize(
    ("owner", "name", "change"),
    [
        pytest.param(ImageInput, "_pixels", lambda pixels: pixels[..., ::-1], id="red and blue swapped"),
        pytest.param(image_input, "_tables", lambda values: values + 1 / 128, id="the mean is another"),
        pytest.param(resize, "center_box", crop_one_pixel_off, id="the crop is a pixel off"),
    ],
)
def test_a_planted_error_is_noticed(loaded, monkeypatch, owner: Any, name: str, change: Any) -> None:
    engine, signature = loaded
    changed(monkeypatch, owner, name, change)
    must_notice(compare_values, engine, make_task(signature, oversample=0), "coffee", "as it is", 90)


def test_a_batch_answers_as_its_images_do_alone(loaded) -> None:
    engine, signature = loaded
    task = make_task(signature)
    payloads = [Payload(photo(name, "as it is")) for name in PHOTOS]
    prepared = task.preprocess(payloads, {})
    together = task.postprocess(engine.run(prepared.inputs), prepared.contexts, {"top_k": 1})
    names = [answer["predictions"][0]["label"] for answer in together]
    assert names == ["tiger cat", "espresso", "missile", "football helmet"]
    for payload, answer in zip(payloads, together, strict=True):
        single = task.preprocess([payload], {})
        (alone,) = task.postprocess(engine.run(single.inputs), single.contexts, {"top_k": 1})
        assert alone["predictions"][0]["index"] == answer["predictions"][0]["index"]
        assert alone["predictions"][0]["score"] == pytest.approx(answer["predictions"][0]["score"], abs=1e-4)


def test_the_cat_is_a_cat_in_plain_words(loaded) -> None:
    engine, signature = loaded
    task = make_task(signature)
    prepared = task.preprocess([Payload(photo("chelsea", "as it is"))], {"top_k": 3})
    (answer,) = task.postprocess(engine.run(prepared.inputs), prepared.contexts, {"top_k": 3})
    assert {p["label"] for p in answer["predictions"]} == {"tiger cat", "Egyptian cat", "tabby"}


def crops(count: int) -> Iterator[bytes]:
    """Parts of the photos at sizes where decoding is reduced, every other one with noise like a camera's.

    No larger than it takes: then least is left of them, and a crop is made and looked at in a third of the time.
    """
    random = np.random.default_rng(7)
    grain = random.normal(0, 6, (2048, 2048, 1)).astype(np.int16)
    images = [Image.open(DEMO / "images" / f"{name}.jpg").convert("RGB") for name in PHOTOS]
    for number in range(count):
        image = images[number % len(images)]
        part = random.uniform(0.4, 1)
        width, height = int(image.width * part), int(image.height * part)
        left = random.integers(0, image.width - width + 1)
        top = random.integers(0, image.height - height + 1)
        factor = random.choice([1156, 1200, 1290]) / min(width, height)
        crop = image.crop((left, top, left + width, top + height))
        crop = crop.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)
        if number % 2:
            top, left = random.integers(0, 2048 - crop.height), random.integers(0, 2048 - crop.width)
            noise = grain[top : top + crop.height, left : left + crop.width]
            crop = Image.fromarray(np.clip(np.asarray(crop) + noise, 0, 255).astype(np.uint8))
        yield jpeg(crop, int(random.choice([75, 85, 92])), int(random.choice([0, 2])))


def test_200_crops_decoded_reduced_and_in_full(loaded) -> None:
    engine, signature = loaded
    tasks = [make_task(signature, oversample=0), make_task(signature)]
    differ, margins, gaps = 0, [], []
    for data in crops(200):
        full, reduced = (scores(engine, task.preprocess([Payload(data)], {}).inputs["image"]) for task in tasks)
        gaps.append(float(np.abs(full - reduced).max()))
        if full.argmax() != reduced.argmax():
            differ += 1
            second, first = np.sort(full)[-2:]
            margins.append(float(first - second))
    print(
        f"top-1 differs in {differ} of 200; score: median {np.median(gaps):.4f}, most {max(gaps):.4f}; {margins}"
    )
    assert max(gaps) > 0, "the crops are too small: nothing was reduced"
    # Only answers that were as good as a tie may change.
    assert differ <= 10
    assert all(margin < 0.05 for margin in margins)
    assert np.median(gaps) < 0.01
